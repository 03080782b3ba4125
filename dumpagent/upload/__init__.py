"""Upload mode: finds dumps, judges them, brings them to the store, remembers, prunes."""
