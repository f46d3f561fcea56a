"""Trained networks as the files that phones run."""
