"""Validation: candidates of a search, measured on the device."""
