"""ZeroCost: networks ranked by scores of their untrained form.

Scores of several proxies (`proxies`) become normal scores by a fixed sample of networks, the
*reference*: the share of the reference that a network beats, as a quantile of the normal
distribution. So an answer depends on the network alone, not on the others that are estimated, and
the mean of normal scores over proxies is the rank ensemble.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture, MnasNet, Operator, SearchSpace
from phonenas.space.errors import (
    InvalidArgument,
    MissingExtra,
    NotEnoughData,
    UnknownName,
    install,
    nearest,
)

from ...training.resources import computing
from ..distributed import distributed
from ..estimator import Accuracy, AccuracyEstimator, Request
from ..results import read_any
from .normal_scores import Scales, share
from .proxies import PROXIES, seed_of
from .proxy_inputs import Batch, of_images, of_noise
from .trained_fit import Description, TrainedFit

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = ["ENSEMBLE", "Scoring", "ZeroCost"]

Floats = npt.NDArray[np.float64]

# One of each kind: by images, by noise, by weights alone. Chosen on draws of NAS-Bench-Macro and
# on Accel-NASBench. Kendall's tau with 100 and 60 networks of these: 0.75 and 0.47. The first two
# alone: 0.82 and 0.36. Parameters alone: 0.24, the last, and 0.69, the first of all.
ENSEMBLE = ("naswot", "sensitivity", "synflow")
_VERSION = 1
_FEWEST_REFERENCES = 8
_KNOWN = (10, 200)  # with fewer nothing is told apart, with more a surrogate is fitted
_DRAWS = 8  # times the networks wanted: of a small space many are alike
_BEYOND = 1.0  # this far outside the reference, in normal deviations, is an extrapolation
_ERROR = 0.2
_COST_S = {"naswot": 0.2, "sensitivity": 0.15, "grad_norm": 0.4, "synflow": 0.15, "zen": 0.15}


@dataclass(frozen=True)
class Scoring:
    """How each network is scored.

    Args:
        repeats: First weights of a network over which scores are averaged, ≥ 1.
        batch: Images of a batch, ≥ 4.
        resolution_px: Larger networks are scored with inputs of this side, which costs less; None
            scores each at its own.
    Raises:
        InvalidArgument: A number outside its range.
    """

    repeats: int = 1
    batch: int = 32
    resolution_px: int | None = 64

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.batch < 4:
            raise InvalidArgument(
                "zero-cost scores take 1 repeat and 4 images or more, got "
                f"{self.repeats} and {self.batch}"
            )


class ZeroCost(AccuracyEstimator):
    """A rank by zero-cost proxies, as a share or, calibrated, as a top-1.

    Without `known`, `top1` is not an accuracy: it is the share of the reference networks that this
    one beats, and only the order counts. Its standard error is 0.2 then, a rule of thumb. With
    `known`, `top1` is on the scale of measured accuracies: it is fitted on the scores of these
    networks, their size, depth and kernels, and their operators (`TrainedFit`), and the standard
    error is that of a single prediction.

    No proxy is good everywhere: compare it with a few trained networks of your own space first
    (`phonenas benchmark accuracy`).

    A network whose normal score lies more than 1 beyond the reference is `outside`. A network for
    which a proxy gives no number has failed.

    Lifetime: the reference and the known networks are scored once, with the first estimate; then a
    network costs its own passes. All chance is seeded, each network's first weights by the seed
    and its operators; one thread computes.

    Args:
        images: Inputs of the networks; a batch is drawn by the seed. Networks are scored with as
            many classes as the images have. None uses noise and random labels.
        proxies: Names of `proxies.PROXIES`; "rank" stands for `ENSEMBLE`. The answer of several is
            the mean of their normal scores.
        space: From which the reference is drawn; that of the search. MnasNet by default.
        reference: How many networks are drawn, at least 8; or the networks themselves.
        known: Networks with their top-1 in (0, 1), 10 to 200, to fit on.
        seed: Of all chance, ≥ 0.
        scoring: How each network is scored.
    Raises:
        UnknownName: No such proxy.
        InvalidArgument: No proxy, or a count, a seed or a top-1 out of range.
        MissingExtra: torch is not installed.
        NotEnoughData: The space has too few networks, or, with the first estimate, a proxy gave
            numbers for too few of the reference or of the known networks.

    >>> from phonenas.space import NASBenchMacro
    >>> macro = NASBenchMacro()
    >>> by_size = ZeroCost(proxies=("macs",), space=macro)
    >>> answer = by_size.estimate([macro.decode([0] * 8), macro.decode([2] * 8)])
    >>> bool(answer.top1[0] < answer.top1[1])
    True
    """

    name, form = "zero_cost", "zero_cost[:PROXY]"
    takes = ("images", "trained", "unit", "workers")
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
        scoring: Scoring | None = None,
    ) -> None:
        self.scoring = scoring = scoring or Scoring()
        listed = (proxies,) if isinstance(proxies, str) else tuple(proxies)
        names = [n for p in listed for n in (ENSEMBLE if p == "rank" else (p,))]
        self.proxies = tuple(dict.fromkeys(names))
        for proxy in self.proxies:
            if proxy not in PROXIES:
                raise UnknownName(
                    f"no zero-cost proxy is called {proxy!r}. {nearest(proxy, (*PROXIES, 'rank'))}"
                )
        if not self.proxies or seed < 0:
            raise InvalidArgument(
                "zero-cost scores take at least one proxy and a seed of 0 or more; got "
                f"{len(self.proxies)} and {seed}"
            )
        if images is not None and len(images) < scoring.batch:
            raise InvalidArgument(
                f"a batch has {scoring.batch} images, and {images.source} has {len(images)}: give "
                "more images, or a smaller batch"
            )
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "zero-cost proxies need torch, which cannot be imported here. "
                f"Install it:  {install('torch')}"
            ) from error
        self.images, self.seed = images, seed
        space = space or MnasNet()
        self.reference = self._reference(space, reference)
        self._batches: dict[tuple[int, int], Batch] = {}
        self.known = self._trained(known)
        self.note = _scale_of(len(known))
        if not known:
            drawn = f" of {space.name} at {space.resolution_px} px"
            source = drawn if isinstance(reference, int) else ""
            self.quantity = "share beaten"
            self.note = (
                f"no accuracy, but the share of {len(self.reference)} reference networks{source} "
                "that a network beats by zero-cost proxies: only the order counts"
            )

    @classmethod
    def make(cls, request: Request) -> AccuracyEstimator:
        if request.unit is not None and request.trained is None:
            raise InvalidArgument("--unit is of the table of --trained: give it, too")
        given = {
            "known": () if request.trained is None else _read(request),
            "images": request.images,
            "proxies": tuple((request.argument or "rank").split("+")),
            "space": request.space,
            "seed": request.seed,
        }
        return distributed(cls, given, request.workers)

    def _reference(
        self, space: SearchSpace, reference: int | Sequence[Architecture]
    ) -> tuple[Architecture, ...]:
        if isinstance(reference, int):
            genomes = space.sample(np.random.default_rng(self.seed), _DRAWS * max(reference, 1))
            rows = {key: row for row, key in reversed(list(enumerate(space.keys(genomes))))}
            networks = [space.decode(genomes[row]) for row in sorted(rows.values())[:reference]]
        else:
            networks = list(dict.fromkeys(reference))
        if len(networks) < _FEWEST_REFERENCES:
            raise NotEnoughData(
                f"normal scores need {_FEWEST_REFERENCES} different reference networks or more, "
                f"and there are {len(networks)}. Give a larger space, or more networks."
            )
        return tuple(networks)

    def knowing(self, known: Sequence[tuple[Architecture, float]]) -> ZeroCost:
        """The same, fitted on trained networks; what is scored is shared.

        Raises:
            InvalidArgument: As the constructor.
        """
        one = copy(self)
        one.__dict__ |= {"_scales": self._scales, "_reference_scores": self._reference_scores}
        for own in ("digest", "_fit"):
            one.__dict__.pop(own, None)
        one.known = self._trained(known)
        one.quantity, one.note = AccuracyEstimator.quantity, _scale_of(len(known))
        return one

    @staticmethod
    def _trained(
        known: Sequence[tuple[Architecture, float]],
    ) -> tuple[tuple[Architecture, float], ...]:
        least, most = _KNOWN
        if not known:
            return ()
        if len(known) > most:
            raise InvalidArgument(
                f"zero-cost scores are corrected by {least} to {most} trained networks, got "
                f"{len(known)}: fit a surrogate to them:  phonenas fit-accuracy TABLE"
            )
        if len(known) < least or not all(0 < top1 < 1 for _, top1 in known):
            raise InvalidArgument(
                f"zero-cost scores are corrected by {least} to {most} different trained networks, "
                f"each with a top-1 in (0, 1); got {len(known)}"
            )
        return tuple(known)

    @cached_property
    def digest(self) -> str:
        parts = repr(
            (
                _VERSION,
                self.proxies,
                self.seed,
                self.scoring.repeats,
                self.scoring.batch,
                self.scoring.resolution_px,
                self.images and (self.images.digest, len(self.images.classes)),
                [str(a) for a in self.reference],
                [(str(a), t) for a, t in self.known],
            )
        )
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        passes = self.scoring.repeats * self.scoring.batch / 32
        return passes * sum(_COST_S.get(p, 1e-5) for p in self.proxies)

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        if not architectures:
            return Accuracy.joined([])
        scores, seconds, reasons = self.scores(architectures)
        normal = self._scales(scores)
        broken = np.array([bool(reason) for reason in reasons])
        top1, error = share(normal), np.full(len(normal), _ERROR)
        if self.known and not broken.all():
            well = [a for a, out in zip(architectures, broken, strict=True) if not out]
            description, fit = self._fit
            columns = description(self._as_trained(well), self._scales.each(scores[~broken]))
            top1[~broken], error[~broken] = fit(columns)
        low, high = self._scales.whole.normal_scores[[0, -1]]
        outside = (normal < low - _BEYOND) | (normal > high + _BEYOND)
        top1[broken] = error[broken] = np.nan
        return Accuracy(top1, error, outside & ~broken, tuple(reasons), tuple(seconds))

    def scores(
        self, architectures: Sequence[Architecture]
    ) -> tuple[Floats, list[float], list[str]]:
        """The proxies' scores, on their own scales.

        Returns:
            Scores, (n, proxies), NaN where a proxy has none; seconds that each network took; and
            for each the reason of a failure, "" where all is well.
        """
        scores = np.full((len(architectures), len(self.proxies)), np.nan)
        seconds, reasons = [], []
        with computing(1):
            for row, network in zip(scores, architectures, strict=True):
                began = time.perf_counter()
                reasons.append(self._score(network, row))
                seconds.append(time.perf_counter() - began)
        return scores, seconds, reasons

    def _score(self, network: Architecture, row: Floats) -> str:
        """Fill in one network's scores; the reason if one fails."""
        scored = self._as_scored(network)
        batch = self._batch(scored.resolution_px, scored.classes)
        for column, proxy in enumerate(self.proxies):
            try:
                values = [
                    PROXIES[proxy](scored, batch, seed_of(scored, self.seed + r))
                    for r in range(self.scoring.repeats)
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

    def _as_scored(self, network: Architecture) -> Architecture:
        (network,) = self._as_trained([network])
        limit = self.scoring.resolution_px
        if limit is not None and network.resolution_px > limit:
            network = network.with_resolution(max(limit, network.total_stride))
        return network

    def _as_trained(self, networks: Sequence[Architecture]) -> list[Architecture]:
        """Networks with as many classes as the images have."""
        if self.images is None:
            return list(networks)
        classes = len(self.images.classes)
        return [a if a.classes == classes else replace(a, classes=classes) for a in networks]

    @cached_property
    def _reference_scores(self) -> Floats:
        """Of all of the reference, (n, proxies), NaN where a proxy has none."""
        return self.scores(self.reference)[0]

    @cached_property
    def _scales(self) -> Scales:
        scores = self._reference_scores
        scores = scores[np.isfinite(scores).all(axis=1)]
        if len(scores) < _FEWEST_REFERENCES:
            raise NotEnoughData(
                f"{', '.join(self.proxies)} gave numbers for {len(scores)} of "
                f"{len(self.reference)} reference networks; {_FEWEST_REFERENCES} are needed"
            )
        return Scales.of(scores)

    @cached_property
    def _fit(self) -> tuple[Description, TrainedFit]:
        """What describes a network, and the fit on those that are trained."""
        scores, _, reasons = self.scores([a for a, _ in self.known])
        known = [one for one, reason in zip(self.known, reasons, strict=True) if not reason]
        if len(known) < _KNOWN[0]:
            raise NotEnoughData(
                f"{len(known)} of the trained networks could be scored; {_KNOWN[0]} are needed"
            )
        found = np.flatnonzero(np.isfinite(self._reference_scores).all(axis=1))
        reference = [self.reference[i] for i in found]
        networks = self._as_trained([a for a, _ in known])
        description = Description.of(
            self._as_trained(reference), self._scales.each(self._reference_scores[found]), networks
        )
        well = np.isfinite(scores).all(axis=1)
        columns = description(networks, self._scales.each(scores[well]))
        return description, TrainedFit.of(columns, np.array([top1 for _, top1 in known]))

    def _batch(self, px: int, classes: int) -> Batch:
        if (px, classes) not in self._batches:
            self._batches[px, classes] = (
                of_noise(self.scoring.batch, px, classes, self.seed)
                if self.images is None
                else of_images(self.images, self.scoring.batch, px, self.seed)
            )
        return self._batches[px, classes]


def _scale_of(known: int) -> str:
    """What the numbers of one that is fitted on trained networks are."""
    return f"on the scale of {known} trained networks, which zero-cost scores are fitted on"


def _read(request: Request) -> list[tuple[Architecture, float]]:
    """The trained networks of a request's table, each once, with the mean top-1 of its rows; rows
    that failed are left out.

    Raises:
        InvalidArgument: A cache, which may hold the answers of several trainings; or as `read_any`.
        UnsupportedFormat, NotEnoughData: As `read_any`.
    """
    file = request.trained
    assert file is not None
    if file.suffix == ".db":
        raise InvalidArgument(
            f"{file} is a cache, which may hold accuracies after several trainings: give --trained "
            "a table with the columns network and top1, or a promoted.json"
        )
    space = request.space.whole if request.space is not None else None
    results = read_any(file, unit=request.unit, space=None if file.suffix == ".json" else space)
    rows: dict[tuple[Operator, ...], list[int]] = {}
    for row, network in enumerate(results.networks):
        if not results.failed[row]:
            rows.setdefault(network.operators(), []).append(row)
    return [(results.networks[at[0]], float(results.top1[at].mean())) for at in rows.values()]
