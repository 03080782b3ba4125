"""Reads a heap dump into arrays: objects as numbers, their classes, their references."""
