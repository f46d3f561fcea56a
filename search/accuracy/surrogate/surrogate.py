"""Surrogate: top-1 from the operators of a network, fitted on a published table.

Three terms, in points of top-1, fitted on the Accel-NASBench table (see `fit`):

- *size*: a slope times log2 of the MACs in the layers. Width and resolution act almost only here,
  for all else is a share or a mean that they do not change: so it holds for other widths, too;
- *shape*: linear in 45 features, nine for each of five stages. A stage is the layers whose
  output map is 1/2, 1/4, 1/8, 1/16 or 1/32 of the input. Beyond the range seen in the table a
  feature counts as the nearest value seen;
- *detail*: a kernel expansion over the same features, 0 far from all networks of the table.

What the table does not contain at all is estimated low, so that a search gains nothing by it:

- a regular convolution counts as the depthwise-separable one of the same shape, kernel, stride
  and squeeze; its own MACs add nothing;
- a layer where an identity would fit and which has another skip costs 3.5 points times the share
  of such layers. Source: He et al., CVPR 2016, table 2: 34 layers without shortcuts 28.54 %
  top-1 error, with them 25.03 %.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib import resources
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import parsed, strict
from phonenas.space import AdditiveTable, Architecture, Genomes, Operator, SearchSpace
from phonenas.space.architecture import CLASSES
from phonenas.space.errors import InvalidArgument, UnsupportedFormat

from ..estimator import Accuracy, AccuracyEstimator, Request, refuse_foreign
from .surrogate_file import SurrogateFile

__all__ = [
    "CORRECTED",
    "FEATURES",
    "FORMAT",
    "VERSION",
    "Surrogate",
    "features",
    "raw_sums",
    "sums",
    "table_path",
]

Floats = npt.NDArray[np.float64]
FORMAT = "phonenas accuracy surrogate"
VERSION = 1  # a file that is complete
CORRECTED = 2  # one that corrects the shipped file, as `refit` writes it
STAGES = 5
# What is summed over the layers of each stage; `first` are the layers that no identity fits.
_STAGE_SUMS = (
    "macs",
    "params",
    "layers",
    "expansion",
    "kernel",
    "squeeze",
    "first",
    "first_expansion",
    "first_kernel",
    "first_squeeze",
    "channels",
)
# What is summed over the whole network, after the stages.
_WHOLE_SUMS = ("params", "fits", "refused", "regular", "unseen")
SUMS = STAGES * len(_STAGE_SUMS) + len(_WHOLE_SUMS)
_SHAPE = (
    "log2 layers",
    "mean log2 expansion",
    "mean kernel",
    "squeezed share",
    "first: mean log2 expansion",
    "first: mean kernel",
    "first: squeezed share",
    "log2 share of macs",
    "log2 share of params",
)
FEATURES = tuple(f"1/{2**s}: {name}" for name in _SHAPE for s in range(1, STAGES + 1))

SKIP_POINTS = 3.5
_LEAST_PX = 32  # below, its strides leave no map
CHANCE = 0.001
WIDTH_TOLERANCE = log2(1.26)  # a quarter, the step between widths in MnasNet's own space
RANGE_TOLERANCE = 1.1
_REMEDY = "Fit another:  phonenas fit-accuracy TABLE.csv"
_CHUNK = 512  # rows whose kernel stays in the L2 cache


@lru_cache(maxsize=65536)
def sums(operator: Operator, resolution_px: int) -> tuple[float, ...]:
    """What one operator adds to a network's raw sums, (60,): 11 for each stage, 5 for the whole.

    Args:
        resolution_px: Side of the network's input, in pixels: it decides the stage.
    """
    own = [0.0] * SUMS
    if operator.kind in ("stem", "head"):
        own[-5] = operator.params
        own[-1] = float(operator.kind == "head" and operator.out_channels != CLASSES)
        own[-1] += float(operator.activation != "relu" or operator.hidden > 0)
        return tuple(own)
    regular = operator.kind == "conv"
    if regular:
        operator = replace(operator, kind="dsconv")
    fits = operator.stride == 1 and operator.in_channels == operator.out_channels
    expansion, kernel = log2(operator.expansion), (operator.kernel - 3) / 2
    squeeze, first = float(operator.se_channels > 0), float(not fits)
    stage = min(max(round(log2(resolution_px / operator.out_px)), 1), STAGES) - 1
    start = stage * len(_STAGE_SUMS)
    own[start : start + len(_STAGE_SUMS)] = (
        operator.macs,
        operator.params,
        1.0,
        expansion,
        kernel,
        squeeze,
        first,
        first * expansion,
        first * kernel,
        first * squeeze,
        log2(operator.out_channels),
    )
    own[-5:] = (
        operator.params,
        float(fits),
        float(fits and operator.skip != "identity"),
        float(regular),
        float(_unseen(operator)),
    )
    return tuple(own)


def _unseen(operator: Operator) -> bool:
    """Whether the table has no layer of this make."""
    other = operator.activation != "relu" or operator.gate != "sigmoid" or operator.ahead > 0
    new = operator.kind in ("fused", "edge") or operator.kernel not in (3, 5)
    return other or new or operator.expansion > 6


def raw_sums(architectures: Sequence[Architecture]) -> Floats:
    """`sums`, added over the operators of each network, (n, 60)."""
    raw = np.empty((len(architectures), SUMS))
    for row, a in zip(raw, architectures, strict=True):
        np.sum([sums(o, a.resolution_px) for o in a.operators()], axis=0, out=row)
    return raw


def _stages(raw: Floats) -> Floats:
    """The stages' part of raw sums, (n, 5, 11)."""
    return raw[:, : -len(_WHOLE_SUMS)].reshape(len(raw), STAGES, len(_STAGE_SUMS))


def features(raw: Floats) -> tuple[Floats, Floats]:
    """Size and shape from raw sums.

    Args:
        raw: `sums`, added over the operators of each network, (n, 60).
    Returns:
        log2 of the layers' MACs in millions, (n,), and the shape features, (n, 45), in the
        order of `FEATURES`: logarithms to base 2, shares in [0, 1], and kernels as (k - 3) / 2.
    """
    by_name = dict(zip(_STAGE_SUMS, np.moveaxis(_stages(raw), 2, 0), strict=True))
    layers, first = np.maximum(by_name["layers"], 1), np.maximum(by_name["first"], 1)
    macs, params = np.maximum(by_name["macs"], 1), np.maximum(by_name["params"], 1)
    macs_log2 = np.log2(macs.sum(axis=1))
    columns = [np.log2(layers)]
    columns += [by_name[n] / layers for n in ("expansion", "kernel", "squeeze")]
    columns += [by_name[n] / first for n in ("first_expansion", "first_kernel", "first_squeeze")]
    columns += [np.log2(macs) - macs_log2[:, None]]
    columns += [np.log2(params) - np.log2(params.sum(axis=1))[:, None]]
    return macs_log2 - log2(1e6), np.concatenate(columns, axis=1)


def extent(raw: Floats) -> Floats:
    """The columns of which the file has the range, (n, 8), from raw sums, (n, 60).

    log2 of the layers' MACs, of all parameters and of the depth, and for each stage the mean
    log2 of output channels (nan where the stage has no layer).
    """
    stages = _stages(raw)
    layers = stages[:, :, 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        channels = stages[:, :, 10] / layers
        whole = np.log2([stages[:, :, 0].sum(axis=1), raw[:, -5], layers.sum(axis=1)])
    return np.concatenate([whole.T, channels], axis=1)


def table_path() -> Path:
    """The file that is shipped with the package."""
    # By way of the root package: importing `phonenas.data` would load the database layer.
    return Path(str(resources.files("phonenas"))) / "data/tables/accuracy_surrogate.json"


class Surrogate(AccuracyEstimator):
    """Top-1 on ImageNet after a schedule of 16 epochs, as in the Accel-NASBench table.

    Lifetime: reads its file once, then only computes; equal files give equal answers.

    The scale is that of the short schedule, 0.43 to 0.67 in the table; fully trained, the
    networks of the zoo reach up to ten points more and lie further apart. It ranks networks; it
    does not predict the top-1 of a full training. The best of a search are overestimated a little.

    The standard error is that on networks held out of the fit. Outside, the size of each assumption
    is added in squares: how much width, resolution and MACs beyond the table move the prediction;
    how much shape beyond the table would move it; the deduction for missing identities; and 3.5
    points times the share of regular convolutions. (Between widths 0.35 and 1 MobileNetV2's
    published top-1 rises 11.5 points, about twice as much as this model predicts.)

    A file that `phonenas fit-accuracy` wrote from a user's own results gives top-1 on their scale.
    These networks then decide what is outside: their sizes, shapes and resolutions, and whether
    they had pooled skips, regular convolutions, or other classes, kernels and expansions than the
    shipped table.

    Args:
        path: A file that `phonenas fit-accuracy` wrote; the package's own by default.
    Raises:
        UnsupportedFormat: The file is damaged, of another kind or of another version.
        InvalidArgument: There is no such file.

    >>> from phonenas.space import zoo
    >>> answer = Surrogate().estimate([zoo.network("mnasnet-a1"), zoo.network("mnasnet-small")])
    >>> bool(answer.top1[0] > answer.top1[1])
    True
    """

    name, form = "surrogate", "surrogate[:FILE]"
    schedule = "16 epochs of ImageNet"
    note = "after a 16-epoch schedule: it ranks networks, and does not predict ImageNet accuracy"

    def __init__(self, path: str | Path | None = None) -> None:
        file = Path(path) if path is not None else table_path()
        try:
            text = file.read_bytes()
        except OSError as error:
            raise InvalidArgument(f"{file} cannot be read: {error.strerror or error}.") from error
        try:
            self._take(_checked(text, file), hashlib.sha256(text).hexdigest())
        except UnsupportedFormat:
            raise
        except ValueError as error:
            raise UnsupportedFormat(f"{file} is damaged: {error}. {_REMEDY}") from error

    @classmethod
    def make(cls, request: Request) -> Surrogate:
        file = request.argument
        if file.endswith((".csv", ".parquet")):
            raise InvalidArgument(
                f"{file} is a table: look networks up in it by table:{file}, or fit a surrogate to "
                f"it:  phonenas fit-accuracy {shlex.quote(file)} --out mine.json"
            )
        return cls(file or None)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Surrogate:
        """A surrogate from a file's content, before it is written."""
        made = cls.__new__(cls)
        text = json.dumps(content)
        made._take(parsed(text, nan=True), hashlib.sha256(text.encode()).hexdigest())
        return made

    def _take(self, content: dict[str, Any], sha256: str) -> None:
        self.about, self._sha256 = content, sha256
        file = strict(content, SurrogateFile)
        model, shape = file.model, file.model.shape
        self._low, self._high = np.array(shape.low), np.array(shape.high)
        self._mean, self._scale = np.array(shape.mean), np.array(shape.scale)
        self._weights = np.array(shape.weights)
        self._intercept, self._slope = model.intercept, model.slope
        self._length = model.detail.length
        self._detail = np.array(model.detail.weights)
        centres = np.array(model.detail.centres, np.float64).reshape(len(self._detail), -1)
        if self._detail.size and centres.shape != (len(self._detail), len(FEATURES)):
            raise ValueError(f"model.detail: {len(self._detail)} weights of {centres.shape}")
        self._centres = centres.reshape(-1, len(FEATURES)).T / self._length
        self._centre_norms = 0.5 * (self._centres**2).sum(axis=0)
        # NaN for a stage in which no network of the fit has a layer.
        self._range = np.array(model.range, np.float64)
        self._rmse = file.score.rmse_points
        resolutions = file.source.resolution_px
        self._base: Surrogate | None = None
        self._version = file.version
        self.shipped = self._version != CORRECTED
        self._resolutions = np.array(
            resolutions if isinstance(resolutions, list) else [resolutions], np.float64
        )
        if self._version != CORRECTED:
            return
        if file.seen is None or file.base is None:
            raise ValueError("what it corrects is missing")
        seen = (file.seen.refused, file.seen.regular, file.seen.unseen)
        self._new = np.array([not s for s in seen])
        self._base, self._weight = Surrogate(), file.base.weight
        self.note = f"on the scale of {file.source.table}, from which it was fitted"
        self.schedule = f"as in {file.source.table}"
        if self._base.digest != file.base.digest:
            raise UnsupportedFormat(
                f"this file corrects {file.base.digest[:80]}, and the shipped surrogate is "
                f"{self._base.digest}. {_REMEDY}"
            )

    @property
    def digest(self) -> str:
        name = "refitted" if self._version == CORRECTED else "surrogate"
        return f"{name}-{self._version}-{self._sha256[:12]}"

    @property
    def cost_s(self) -> float:
        return 5e-6

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        if self.shipped:
            for a in architectures:
                refuse_foreign(self.name, a.classes, a.resolution_px, _LEAST_PX)
        return self.extrapolated(architectures)

    def extrapolated(self, architectures: Sequence[Architecture]) -> Accuracy:
        """The same for networks of any data set, as a correction starts from it."""
        raw = raw_sums(architectures)
        return self._answer(raw, np.array([a.resolution_px for a in architectures], np.float64))

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        if self.shipped:
            some = space.example()
            refuse_foreign(self.name, some.classes, some.resolution_px, _LEAST_PX)
        table = AdditiveTable(space, partial(sums, resolution_px=space.resolution_px))

        def estimate(genomes: Genomes) -> Accuracy:
            raw = table(genomes)
            return self._answer(raw, np.full(len(raw), float(space.resolution_px)))

        return estimate

    def _answer(self, raw: Floats, resolution_px: Floats) -> Accuracy:
        points, error = np.empty(len(raw)), np.empty(len(raw))
        outside = np.empty(len(raw), np.bool_)
        for start in range(0, len(raw), _CHUNK):
            rows = slice(start, start + _CHUNK)
            points[rows], error[rows], outside[rows] = self._points(raw[rows], resolution_px[rows])
        return Accuracy(np.clip(points / 100, CHANCE, 1.0), error / 100, outside)

    def _points(
        self, raw: Floats, resolution_px: Floats
    ) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Top-1, its error (points) and `outside` of a few hundred networks."""
        size, shape = features(raw)
        seen = np.clip(shape, self._low, self._high)
        z = (seen - self._mean) / self._scale
        points = self._intercept + self._slope * size + z @ self._weights + self._correction(z)

        fits, refused, regular, unseen = raw[:, -4:].T
        slope = self._slope
        if self._base is not None:
            points = points + self._weight * np.clip(
                self._base._points(raw, resolution_px)[0], 100 * CHANCE, 100.0
            )
            slope = abs(slope + self._weight * self._base._slope)
            # What the user's networks had was seen in the fit, and is not an assumption.
            refused, regular, unseen = self._new[:, None] * (refused, regular, unseen)
        layers = np.maximum(_stages(raw)[:, :, 2].sum(axis=1), 1)
        deducted = SKIP_POINTS * refused / np.maximum(fits, 1)
        at = extent(raw)
        beyond = np.fmax(np.maximum(self._range[0] - at, at - self._range[1]), 0)
        resized = np.abs(np.log2(resolution_px[:, None] / self._resolutions)).min(axis=1)
        # Width and resolution enter MACs squared, hence the factor 2 on their logarithms.
        errors = (
            slope * (beyond[:, 0] + 2 * beyond[:, 3:].mean(axis=1) + 2 * resized),
            np.sqrt((((shape - seen) / self._scale * self._weights) ** 2).sum(axis=1)),
            deducted,
            SKIP_POINTS * regular / layers,
        )
        error = np.sqrt(self._rmse**2 + np.square(errors).sum(axis=0))
        outside = (
            (refused + regular + unseen + resized > 0)
            | (beyond[:, :3] > log2(RANGE_TOLERANCE)).any(axis=1)
            | (beyond[:, 3:] > WIDTH_TOLERANCE).any(axis=1)
        )
        return points - (deducted if self._base is None else 0.0), error, outside

    def _correction(self, z: Floats) -> Floats:
        """The detail term, in points, (n,)."""
        z = z / self._length
        exponent = z @ self._centres
        exponent -= self._centre_norms
        exponent -= 0.5 * np.einsum("ij,ij->i", z, z)[:, None]
        return np.asarray(np.exp(exponent, out=exponent) @ self._detail, np.float64)


def _checked(text: bytes, path: Path) -> dict[str, Any]:
    """The file's content, if this version can read it."""
    content = parsed(text, nan=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        held = content.get("format") if isinstance(content, dict) else None
        raise UnsupportedFormat(f"{path} holds {str(held)[:80]!r}, not {FORMAT!r}. {_REMEDY}")
    version = content.get("version")
    if type(version) is not int or version not in (VERSION, CORRECTED):
        todo = "Update phonenas." if isinstance(version, int) and version > CORRECTED else _REMEDY
        raise UnsupportedFormat(
            f"{path} is of version {str(version)[:40]}; this phonenas reads versions {VERSION} and "
            f"{CORRECTED}. {todo}"
        )
    if content.get("features") != list(FEATURES):
        raise UnsupportedFormat(f"{path} lists features that are not this version's. {_REMEDY}")
    return content
