"""Upload mode: finds dumps, judges them, uploads them, remembers, frees space."""
