"""Reading heap dumps: bytes in, answers out."""
