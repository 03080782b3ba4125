"""A file for each command: it reads its options, calls the package, and prints."""
