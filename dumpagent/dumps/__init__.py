"""What a heap dump on a volume is; everybody may import it."""
