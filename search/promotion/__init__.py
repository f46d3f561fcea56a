"""The best networks of a run, trained in full and measured."""

from __future__ import annotations

from .promote import LatencySource, promote
from .result import Promoted, PromotedNetwork, read_promoted

__all__ = ["LatencySource", "Promoted", "PromotedNetwork", "promote", "read_promoted"]
