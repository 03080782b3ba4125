"""System calls: a small function per call, named as the kernel names it."""
