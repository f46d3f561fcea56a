"""What a device reports of itself: text in, values out."""
