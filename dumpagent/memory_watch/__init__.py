"""Tells of containers that the kernel killed for their memory before their JVM could write a heap dump."""
