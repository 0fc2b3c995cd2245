"""Content-addressed store."""
