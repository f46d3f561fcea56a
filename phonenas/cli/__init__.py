"""The command line: one file a command; `app` puts them together."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
