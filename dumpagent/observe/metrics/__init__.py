"""What Prometheus is told of a daemon: listeners that count events. Labels come from closed sets, never from the volume."""
