"""The exact analysis of a heap dump: who holds the memory, by dominators and retained sizes."""
