"""The second destination: every dump that the first one gets goes there too, after it."""
