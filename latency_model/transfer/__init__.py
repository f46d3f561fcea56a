"""A new device from a source device."""
