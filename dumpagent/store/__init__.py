"""The object store as we need it, and those that are it."""
