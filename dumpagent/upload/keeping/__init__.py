"""What may leave the volume."""
