"""What lies on the volume and when it is finished."""
