"""Measures what moving a heap dump costs, side by side with every other client. `make bench` runs it."""
