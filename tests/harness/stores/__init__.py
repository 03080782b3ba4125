"""Real S3 stores on loopback, each started by one `with` block."""
