"""What the agent says about itself: events, and the listeners that turn them into log lines and metrics."""
