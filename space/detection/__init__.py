"""Detectors on a backbone, after the COCO part of the MnasNet paper."""

from __future__ import annotations

from .ssdlite import SSDLite

__all__ = ["SSDLite"]
