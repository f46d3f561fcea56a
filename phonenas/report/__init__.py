"""Reports: runs and networks, each as one HTML page that opens offline."""

from __future__ import annotations

from .comparison_page import write_comparison
from .networks import Compared, NetworkRow, Timing, Top1
from .networks_page import networks_page
from .references import Reference, gain_sentence, read_references, write_references
from .run import write_report
from .validation import measured_in, read_validation

__all__ = [
    "Compared",
    "NetworkRow",
    "Reference",
    "Timing",
    "Top1",
    "gain_sentence",
    "measured_in",
    "networks_page",
    "read_references",
    "read_validation",
    "write_comparison",
    "write_references",
    "write_report",
]
