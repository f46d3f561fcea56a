"""The command serve: jobs under way, in the browser."""

from __future__ import annotations

from .serve import serve

__all__ = ["serve"]
