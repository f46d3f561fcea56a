"""phonenas."""
