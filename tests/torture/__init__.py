"""The promise put to the torture: `make torture`."""
