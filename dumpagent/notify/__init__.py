"""Messages that leave the agent: the webhook and Kubernetes Events."""
