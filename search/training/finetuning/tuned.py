"""FineTuned: what a fine-tuning for int8 came to, and Tuned, the same with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

from phonenas.data.documents import Count, Number, Share, Text
from phonenas.space.lowering.calibration import Ranges
from phonenas.space.naming import counted

from ..export.quantised import QuantisedModel
from .settings import LOSS

__all__ = ["FineTuned", "Tuned"]


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuning for int8, beside quantisation after training.

    The held-out images are none of those trained, calibrated or tested on. On these ONNX Runtime
    runs the ONNX file of each, and by these it was decided.

    Args:
        epochs: Done; 0 where the loss of quantisation after training did not call for any.
        kept: Whether the int8 files are of the fine-tuned weights.
        images: Held out.
        float_top1, before_top1: Share of these that the float32 file, and the int8 file made after
            training, names correctly.
        after_top1: The same of the fine-tuned one; None where there is none.
        failed: Why the fine-tuning ended without weights; "" where it did not.
        digest: Of all settings that decide it, 16 hexadecimal digits.
        not_kept: The int8 files of the other weights on the test images, as `quantised` has those
            that are kept; they are not written, and `sha256` is what theirs would be.
        before_error, after_error: Standard error of the change of `before_top1` and `after_top1`
            from `float_top1`, which are on the same images; None where it was not kept.
    """

    epochs: Count
    kept: bool
    images: Count
    float_top1: Share
    before_top1: Share
    after_top1: Share | None
    failed: Text
    digest: Text
    not_kept: tuple[QuantisedModel, ...] = ()
    before_error: Number | None = None
    after_error: Number | None = None

    def __str__(self) -> str:
        before = _change(self.before_top1 - self.float_top1, self.before_error)
        # The images that choose flatter what they chose.
        on = f"on {counted(self.images, 'held-out image')}, by which this was decided,"
        start = f"{on} int8 after training changes top-1 by {before}"
        if not self.epochs:
            return f"not fine-tuned: {start}, a loss of no more than {LOSS:.0%}"
        done = f"fine-tuned for {counted(self.epochs, 'epoch')}: {start}"
        if self.after_top1 is None:
            return f"{done}; not kept: {self.failed}"
        which = "kept" if self.kept else "not kept"
        after = _change(self.after_top1 - self.float_top1, self.after_error)
        return f"{done}, fine-tuned by {after}: {which}"

    def lines(self, quantised: tuple[QuantisedModel, ...]) -> list[str]:
        """Itself, and each format's top-1 on the test images, each with one standard error.

        Args:
            quantised: The files that are kept.
        """
        told = [str(self)]
        for kept in quantised:
            other = next((q for q in self.not_kept if q.name == kept.name), None)
            if other is None or kept.not_run:
                continue
            after, before = (kept, other) if self.kept else (other, kept)
            parts = [
                f"float32 {_bar(kept.float_top1, kept.images)}",
                *(
                    f"{what} {_bar(q.top1, q.images)} ({q.change:+z.2%} ±{q.change_error:.2%})"
                    for what, q in (("int8 after training", before), ("fine-tuned", after))
                ),
            ]
            told.append(f"{kept.name} on {kept.images:,} images: {', '.join(parts)}")
        return told


def _change(change: float, error: float | None) -> str:
    return f"{change:+z.2%}" + ("" if error is None else f" ±{error:.2%}")


def _bar(top1: float, images: int) -> str:
    return f"{top1:.2%} ±{sqrt(top1 * (1 - top1) / max(images, 1)):.2%}"


@dataclass(frozen=True)
class Tuned:
    """A fine-tuning with what its files are made of.

    Args:
        found: What it came to; `not_kept` follows from the export.
        weights: float32 arrays by the names of `to_torch`'s state; empty where there are none.
        ranges: Of the network's values, of both int8 forms.
        calibrated_on: Images that these are of.
    """

    found: FineTuned
    weights: Mapping[str, Any] = field(repr=False)
    ranges: Ranges = field(repr=False)
    calibrated_on: int

    def with_tests(self, not_kept: tuple[QuantisedModel, ...]) -> FineTuned:
        """What it came to, with the files that are not kept on the test images."""
        return replace(self.found, not_kept=not_kept)
