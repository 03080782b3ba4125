"""One dump into the store."""
