"""Fakes that several test files share: a device without hardware and a small space."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phonenas import space
from phonenas.testing import FakeDevice
from phonenas.testing.device import SENTINEL_MS

__all__ = ["SENTINEL_MS", "FakeDevice", "TinySpace", "old_run", "undigested"]


class TinySpace(space.AccelNASBench):
    """A handful of operators: the last blocks are settled."""

    name = "tiny"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            name: options if name.startswith(("block1", "block2")) else options[:1]
            for name, options in super().decisions.items()
        }


def undigested(document: Mapping[str, Any], version: int = 1) -> dict[str, Any]:
    """A document as phonenas 0.1 wrote it, without a digest; so a test can change what it holds."""
    return {k: v for k, v in document.items() if k not in ("digest", "run")} | {"version": version}


def old_run(folder: Path) -> None:
    """Turn a run into one as phonenas 0.1 wrote it: without a digest in any of its files."""
    run = folder / "run.json"
    run.write_text(json.dumps(undigested(json.loads(run.read_text()))))
    path = folder / "checkpoint.npz"
    with np.load(path) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays["plain"]))
    del plain["digest"], plain["arrays"]
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "plain": np.array(json.dumps(plain))})
    path.write_bytes(buffer.getvalue())
