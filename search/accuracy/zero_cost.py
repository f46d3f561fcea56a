"""ZeroCost: networks ranked by what can be seen of them before any training.

Scores of several proxies (`proxies`) are brought to one scale by a fixed sample of networks, the
*reference*: a network stands where the share of the reference that it beats puts it. So an answer
depends on the network alone, not on who else is asked, and the mean of places over proxies is
the rank ensemble.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...space import Architecture, MnasNet, SearchSpace
from ...space.errors import InvalidArgument, MissingExtra, NotEnoughData, UnknownName, nearest
from ..training.evaluation import computing
from .estimator import Accuracy, AccuracyEstimator
from .places import Line, Scales, share
from .proxies import PROXIES, seed_of
from .shown import Batch, of_images, of_noise

if TYPE_CHECKING:
    from ...data.images import ImageSet

__all__ = ["ENSEMBLE", "ZeroCost"]

Floats = npt.NDArray[np.float64]

# One of each kind: by images, by noise, by weights alone. Chosen on two draws of NAS-Bench-Macro with a
# look at Accel-NASBench. Kendall's tau there, 100 and 60 networks: 0.75 and 0.47. The first two
# alone: 0.82 and 0.36; there parameters alone are ahead of all, with 0.69, and here last, with 0.24.
ENSEMBLE = ("naswot", "sensitivity", "synflow")
_VERSION = 1
_FEWEST_REFERENCES = 8
_FEWEST_KNOWN = 5
_DRAWS = 8  # times the networks wanted: of a small space many are alike
_BEYOND = 1.0  # this far outside the reference, in normal deviations, is an extrapolation
_ERROR = 0.2
_COST_S = {"naswot": 0.2, "sensitivity": 0.15, "grad_norm": 0.4, "synflow": 0.15, "zen": 0.15}


class ZeroCost(AccuracyEstimator):
    """A rank by zero-cost proxies, stated as a share or, calibrated, as a top-1.

    Without `known`, `top1` is no accuracy: it is the share of the reference networks that this one
    beats, and only the order counts. Its standard error is 0.2 then, a rule of thumb. With
    `known`, `top1` is that of a line from places to the logits of accuracies that the user
    measured, on their scale, and the standard error is the line's, of a single prediction.

    No proxy is good everywhere: hold it against a few trained networks of the own space first
    (`phonenas benchmark accuracy`).

    A network that stands more than one normal deviation beyond the reference is `outside`. One of
    which a proxy gives no number has failed.

    Lifetime: the reference is scored when first asked, once; then a network costs its own passes.
    All chance is seeded, each network's first weights by the seed and its operators; one thread
    computes.

    Args:
        images: What the networks are shown; 32 of them, or `batch`, are drawn by the seed. Networks
            are judged with as many classes as the images have. None shows noise and random labels.
        proxies: Names of `proxies.PROXIES`; "rank" stands for `ENSEMBLE`. More than one give the
            mean of their places.
        space: Whence the reference is drawn; that of the search. MnasNet by default.
        reference: How many networks are drawn, at least 8; or the networks themselves.
        known: Networks with their top-1 in (0, 1), at least five, to calibrate by.
        seed: Of all chance.
        repeats: First weights a network, over which scores are averaged.
        batch: Images shown, at least 4.
        resolution_px: Larger networks are judged with inputs of this side, which costs less; None
            judges each at its own.
    Raises:
        UnknownName: No such proxy.
        InvalidArgument: A count or a top-1 out of range.
        MissingExtra: torch is not installed.
        NotEnoughData: The space has too few networks, or, when first asked, what is known shows
            no rise of accuracy with the proxies.

    >>> from phonenas.space import NASBenchMacro
    >>> macro = NASBenchMacro()
    >>> by_size = ZeroCost(proxies=("macs",), space=macro)
    >>> told = by_size.estimate([macro.decode([0] * 8), macro.decode([2] * 8)])
    >>> bool(told.top1[0] < told.top1[1])
    True
    """

    name = "zero_cost"
    slow = True

    def __init__(
        self,
        images: ImageSet | None = None,
        *,
        proxies: Sequence[str] = ("rank",),
        space: SearchSpace | None = None,
        reference: int | Sequence[Architecture] = 32,
        known: Sequence[tuple[Architecture, float]] = (),
        seed: int = 0,
        repeats: int = 1,
        batch: int = 32,
        resolution_px: int | None = 64,
    ) -> None:
        asked = (proxies,) if isinstance(proxies, str) else tuple(proxies)
        names = [n for p in asked for n in (ENSEMBLE if p == "rank" else (p,))]
        self.proxies = tuple(dict.fromkeys(names))
        for proxy in self.proxies:
            if proxy not in PROXIES:
                raise UnknownName(
                    f"no zero-cost proxy is called {proxy!r}. {nearest(proxy, (*PROXIES, 'rank'))}"
                )
        if not self.proxies or repeats < 1 or batch < 4 or seed < 0:
            raise InvalidArgument(
                "zero-cost scores take at least one proxy, one repeat, 4 images and a seed of 0 or "
                f"more; got {len(self.proxies)}, {repeats}, {batch} and {seed}"
            )
        if images is not None and len(images) < batch:
            raise InvalidArgument(
                f"{batch} images are to be shown, and {images.source} has {len(images)}: give "
                "more, or a smaller batch"
            )
        if 0 < len(known) < _FEWEST_KNOWN or not all(0 < top1 < 1 for _, top1 in known):
            raise InvalidArgument(
                f"a calibration takes {_FEWEST_KNOWN} networks or more, each with a top-1 in (0, 1)"
            )
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "zero-cost proxies were asked for, and torch cannot be imported here. "
                "Install it:  pip install 'phonenas[torch]'"
            ) from error
        self.images, self.seed, self.repeats, self.batch = images, seed, repeats, batch
        self.resolution_px, self.known = resolution_px, tuple(known)
        space = space or MnasNet()
        self.reference = self._reference(space, reference)
        self._batches: dict[tuple[int, int], Batch] = {}
        if not known:
            of = (
                f" of {space.name} at {space.resolution_px} px"
                if isinstance(reference, int)
                else ""
            )
            self.note = (
                f"top-1 is no accuracy here, but the share of {len(self.reference)} reference "
                f"networks{of} that a network beats by zero-cost proxies: only the order counts"
            )

    def _reference(
        self, space: SearchSpace, reference: int | Sequence[Architecture]
    ) -> tuple[Architecture, ...]:
        if isinstance(reference, int):
            wanted = reference
            genomes = space.sample(np.random.default_rng(self.seed), _DRAWS * max(wanted, 1))
            rows = {key: row for row, key in reversed(list(enumerate(space.keys(genomes))))}
            found = [space.decode(genomes[row]) for row in sorted(rows.values())[:wanted]]
        else:
            found = list(dict.fromkeys(reference))
        if len(found) < _FEWEST_REFERENCES:
            raise NotEnoughData(
                f"places are told from {_FEWEST_REFERENCES} different reference networks or more, "
                f"and there are {len(found)}. Give a larger space, or more networks."
            )
        return tuple(found)

    @cached_property
    def digest(self) -> str:
        told = repr(
            (
                _VERSION, self.proxies, self.seed, self.repeats, self.batch, self.resolution_px,
                self.images and (self.images.digest, len(self.images.classes)),
                [str(a) for a in self.reference], [(str(a), t) for a, t in self.known],
            )
        )  # fmt: skip
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return self.repeats * self.batch / 32 * sum(_COST_S.get(p, 1e-5) for p in self.proxies)

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        if not architectures:
            return Accuracy.joined([])
        scores, seconds, reasons = self.scores(architectures)
        places = self._scales(scores)
        top1, error = (
            self._line(places) if self.known else (share(places), np.full(len(places), _ERROR))
        )
        low, high = self._scales.whole.places[[0, -1]]
        outside = (places < low - _BEYOND) | (places > high + _BEYOND)
        broken = np.array([bool(reason) for reason in reasons])
        top1[broken] = error[broken] = np.nan
        return Accuracy(top1, error, outside & ~broken, tuple(reasons), tuple(seconds))

    def scores(
        self, architectures: Sequence[Architecture]
    ) -> tuple[Floats, list[float], list[str]]:
        """What the proxies say, on their own scales.

        Returns:
            Scores, (n, proxies), NaN where a proxy has none; seconds that each network took; and
            for each the reason of a failure, "" where all is well.
        """
        found = np.full((len(architectures), len(self.proxies)), np.nan)
        seconds, reasons = [], []
        with computing(1):
            for row, network in zip(found, architectures, strict=True):
                began = time.perf_counter()
                reasons.append(self._score(network, row))
                seconds.append(time.perf_counter() - began)
        return found, seconds, reasons

    def _score(self, network: Architecture, row: Floats) -> str:
        """Fill in one network's scores; the reason if one fails."""
        judged = self._as_judged(network)
        batch = self._batch(judged.resolution_px, judged.classes)
        for column, proxy in enumerate(self.proxies):
            try:
                values = [
                    PROXIES[proxy](judged, batch, seed_of(judged, self.seed + r))
                    for r in range(self.repeats)
                ]
            except (ArithmeticError, ValueError) as error:
                return f"{proxy} has no number for it: {error}"
            except (RuntimeError, MemoryError) as error:
                return f"{proxy} could not be computed: {' '.join(str(error).split())[:200]}"
            row[column] = np.mean(values)
            if not np.isfinite(row[column]):
                row[column] = np.nan
                return f"{proxy} gave no finite number"
        return ""

    def _as_judged(self, network: Architecture) -> Architecture:
        if self.images is not None and network.classes != len(self.images.classes):
            network = replace(network, classes=len(self.images.classes))
        limit = self.resolution_px
        if limit is not None and network.resolution_px > limit:
            network = network.with_resolution(max(limit, network.total_stride))
        return network

    @cached_property
    def _scales(self) -> Scales:
        scores, _, _ = self.scores(self.reference)
        scores = scores[np.isfinite(scores).all(axis=1)]
        if len(scores) < _FEWEST_REFERENCES:
            raise NotEnoughData(
                f"{', '.join(self.proxies)} gave numbers for {len(scores)} of "
                f"{len(self.reference)} reference networks; {_FEWEST_REFERENCES} are needed"
            )
        return Scales.of(scores)

    @cached_property
    def _line(self) -> Line:
        scores, _, reasons = self.scores([a for a, _ in self.known])
        well = [not reason for reason in reasons]
        if sum(well) < _FEWEST_KNOWN:
            raise NotEnoughData(
                f"{sum(well)} of the known networks could be scored; {_FEWEST_KNOWN} are needed"
            )
        return Line.fit(self._scales(scores[well]), np.array([t for _, t in self.known])[well])

    def _batch(self, px: int, classes: int) -> Batch:
        if (px, classes) not in self._batches:
            self._batches[px, classes] = (
                of_noise(self.batch, px, classes, self.seed)
                if self.images is None
                else of_images(self.images, self.batch, px, self.seed)
            )
        return self._batches[px, classes]
