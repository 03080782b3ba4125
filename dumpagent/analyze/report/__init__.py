"""Shows an analysis: as text, as JSON, as a page."""
