"""Benchmark on tables: fit on the operators of some networks, predict other networks whole.

Two tables with named columns, as the edge benchmark has them: one row an operator (`model`,
`operation`, `feature`, a time a device, the kernel that ran), and one row a network.

Of a tested network only its graph is read: its operators' shapes, their order, which activations
and additions are folded into which kernel, and, from the numbers that the runtime gives to nodes,
where operations without a row are. Its times are not read, nor which code the runtime took
(winograd and the like): that is predicted from shapes, as in the networks that are fitted on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import NotEnoughData, UnknownName, UnsupportedFormat, nearest
from phonenas.space.kernels.kernel import Kernel, KernelKind

from .. import tabular
from ..metrics import score
from ..units.kernel_features import FAMILIES, family, features
from ..units.kernel_regressor import KernelRegressor
from .columns import numbers
from .kernel_sums import FEATURES, KernelSum, sums

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Network", "networks", "read_networks"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_MICROSECONDS = 1e-3  # ms; the tables' unit
_ACTIVATIONS = {
    "aten::relu": "relu",
    "aten::clamp": "relu6",
    "aten::hardswish": "hard_swish",
    "aten::sigmoid": "sigmoid",
}
_ONE: dict[str, KernelKind] = dict.fromkeys(_ACTIVATIONS, "activation")
_KINDS: dict[str, KernelKind] = _ONE | {
    "CONV_2D": "conv",
    "CONV_2D_GROUP": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "vulkan_prepack::run_conv2d_context": "conv",
    "FULLY_CONNECTED": "linear",
    "vulkan_prepack::run_linear_context": "linear",
    "MEAN": "global_pool",
    "aten::adaptive_avg_pool2d": "global_pool",
    "AVERAGE_POOL_2D": "average_pool",
    "aten::avg_pool2d": "average_pool",
    "MAX_POOL_2D": "max_pool",
    "aten::max_pool2d": "max_pool",
    "CONCATENATION": "concat",
    "aten::add": "add",
    "aten::mul": "mul",
    "vulkan_prepack::run_batchnorm_context": "batch_norm",
}
_LINKED = re.compile(r"linked_:_([a-z_]+?)_\d+", re.ASCII)
_NUMBERS = re.compile(r"_(\d+)(?=_|$)", re.ASCII)
#: What is examined, for those who read the scores.
METHOD = (
    "operators by the regressor of `fit`; from these to the whole by ridge over sums of operators, "
    "for tables of operators inside networks, where `fit` has kernels alone"
)
_FOLDS = 5
_MINIMUM = 10  # networks to fit on; fewer do not determine the step to the whole


@dataclass(frozen=True)
class Network:
    """One network of a table.

    Args:
        name: As in the table.
        kernels: Its kernels that have a row, in the table's order.
        ms: Time of each, (kernels,), NaN where it was not measured.
        variants: Which code the runtime took for each, (kernels,).
        hidden: Kernels that its graph has beside them, without a row.
    """

    name: str
    kernels: tuple[Kernel, ...]
    ms: Floats
    variants: tuple[str, ...]
    hidden: tuple[Kernel, ...]


def read_networks(operators: pd.DataFrame, device: str) -> dict[str, Network]:
    """The networks of a table of operators, by name.

    Args:
        operators: Columns `model`, `operation`, `feature`, `device` in µs, and, where the runtime
            says so, columns that end in `kernel`.
        device: The column of times, as `pixel4|gpu|float`.
    Raises:
        UnknownName: A column is missing.
        UnsupportedFormat: A row names an operation or shapes that are not understood.
    """
    for name in ("model", "operation", "feature"):
        if name not in operators.columns:
            raise UnknownName(f"no column {name!r}. {nearest(name, map(str, operators.columns))}")
    us = numbers(operators, device)
    named = [str(c) for c in operators.columns if str(c).endswith("kernel")]
    mine = f"{device.rsplit('|', 1)[0]}|kernel"
    codes = [[str(v) for v in operators[c].fillna("")] for c in named]
    variants = codes[named.index(mine)] if mine in named else [""] * len(operators)
    rows: dict[str, list[tuple[Kernel, float, str, list[int], bool]]] = {}
    cells = zip(operators["model"], operators["operation"], operators["feature"], strict=True)
    for i, (model, operation, feature) in enumerate(cells):
        # Another device's column shows the same graph where this one's code has lost the names.
        names = [column[i] for column in codes]
        linked = max((_LINKED.findall(n) for n in names), key=len, default=[])
        try:
            kernel, padded = _kernel(str(operation), str(feature), linked)
        except (KeyError, ValueError) as error:
            raise UnsupportedFormat(
                f"operators, row {i + 1} ({model}): {operation} with {feature} is not understood: "
                f"{error}"
            ) from error
        nodes = sorted({int(n) for name in names for n in _NUMBERS.findall(name)})
        variant = _NUMBERS.sub("", variants[i].split("_linked")[0])
        rows.setdefault(str(model), []).append(
            (kernel, us[i] * _MICROSECONDS, variant, nodes, padded)
        )
    return {
        name: Network(
            name,
            tuple(r[0] for r in own),
            np.array([r[1] for r in own]),
            tuple(r[2] for r in own),
            _hidden([(r[0], r[3], r[4]) for r in own]),
        )
        for name, own in rows.items()
    }


def _kernel(operation: str, feature: str, linked: Sequence[str]) -> tuple[Kernel, bool]:
    """The kernel of a row, and whether its input was padded by a node of its own."""
    kind = _KINDS[operation]
    values = json.loads(feature.replace("'", '"'))
    shapes = {str(k).lower(): v for k, v in values.items() if v != "-"}

    def number(*names: str, default: int | None = None) -> int:
        value = next((shapes[n] for n in names if n in shapes), default)
        if value is None:
            raise KeyError(names[0])
        return int(value)

    # A folded product is one by constants (a scale, a hard sigmoid), and so is all after it.
    fused = tuple(linked[: linked.index("mul")] if "mul" in linked else linked)
    if kind == "activation":
        fused = (_ACTIVATIONS[operation],)
    size = number("input_shape", default=1)
    if kind == "linear":
        cin = number("input_channel", default=size)
        return Kernel(kind, cin, number("filter", "output_shape"), fused=fused), False
    channels = number("input_channel")
    out = number("output_shape", default=1 if kind in ("global_pool", "average_pool") else size)
    if kind == "global_pool" or (kind == "average_pool" and out == 1):
        return Kernel("global_pool", channels, channels, (size, size), fused=fused), False
    if kind not in ("conv", "max_pool", "average_pool"):
        joined = number("filter", default=channels) if kind == "concat" else channels
        operands = max(2, number("kernel", default=2)) if kind == "concat" else 1
        operands = 2 if kind in ("add", "mul") else operands
        area = (size, size)
        return Kernel(kind, joined, joined, area, area, operands=operands, fused=fused), False
    window, stride = number("kernel", "kernel_size"), number("stride")
    inside = min(size, out * stride)  # what lies beyond is padding
    makes = channels if kind != "conv" else number("filter", "output_channel")
    groups = number("group", "groups", default=channels) if kind == "conv" else 1
    if operation.startswith("DEPTHWISE"):
        makes, groups = channels, channels
    kernel = Kernel(
        kind,
        channels,
        makes,
        (inside, inside),
        (out, out),
        (window, window),
        (stride, stride),
        groups,
        1,
        fused,
    )
    return kernel, inside < size


def _hidden(rows: Sequence[tuple[Kernel, list[int], bool]]) -> tuple[Kernel, ...]:
    """Operations without a row: each run of numbers that no row has is one more launch.

    It comes before the row with the next number, over that row's input; a padding is folded.
    """
    used = {n for _, nodes, _ in rows for n in nodes}
    if not used:
        return ()
    runs: dict[int, int] = {}  # number that follows the run → its length
    length = 0
    for n in range(max(used) + 1):
        if n in used and length:
            runs[n] = length
        length = 0 if n in used else length + 1
    hidden = []
    for kernel, nodes, padded in rows:
        count = runs.pop(nodes[0], 0) - padded if nodes else 0
        if count > 0:
            c, px = kernel.in_channels, kernel.in_px
            hidden.append(Kernel("mul", c, c, px, px))
    return tuple(hidden)


def networks(
    operators: pd.DataFrame, whole: pd.DataFrame, *, device: str, test: Sequence[str]
) -> Row:
    """Predict networks whole whose operators were not measured.

    Args:
        operators: One row an operator, as `read_networks` reads them.
        whole: One row a network: `model`, its time in `device` or `device|mean`, µs.
        device: The column of times.
        test: Shell patterns of the networks to predict; the model is fitted on all others.
    Returns:
        `method`; `n_train`, `n_test`; `operator_mape` on the tested networks' operators; `score`
        with its interval, `raw_sum` (predicted operators, no more), `macs` (a straight line in
        multiply-adds), `booster` (plain trees on operators and a straight line), `measured_sum`
        (a straight line in the sum of operators as measured, which no prediction has); `rows`, one
        a network; `left_out`, how many networks have no time, and `left_out_networks`, their names.
    Raises:
        UnknownName: A column is missing, or a pattern matches nothing.
        UnsupportedFormat, InvalidArgument: A row holds what is not understood.
        NotEnoughData: Too few networks.
    """
    everything = read_networks(operators, device)
    times = _whole_ms(whole, device)
    known = [n for n in everything if n in times and np.isfinite(everything[n].ms).any()]
    tested = [n for n in known if any(fnmatchcase(n, p) for p in test)]
    for pattern in test:
        if not any(fnmatchcase(n, pattern) for n in everything):
            raise UnknownName(
                f"test: no network matches {pattern!r}. {nearest(pattern, everything)}"
            )
    fitted = [n for n in known if n not in tested]
    if not tested or len(fitted) < _MINIMUM:
        raise NotEnoughData(
            f"{len(tested)} networks to predict and {len(fitted)} to fit on; it takes 1 and "
            f"{_MINIMUM}"
        )
    train, asked = [everything[n] for n in fitted], [everything[n] for n in tested]
    train_ms, measured = (np.array([times[n] for n in names]) for names in (fitted, tested))
    model = _WholeModel.fit(train, train_ms)
    ms, half = model.predict(asked)
    low, high = ms / (1 + half), ms * (1 + half)
    errors = [np.abs(model.kernels_ms(n) / n.ms - 1) for n in asked]
    beside = _baselines(train, train_ms, asked, model)
    rows = zip(tested, *(v.tolist() for v in (measured, ms, low, high)), strict=True)
    names = ("network", "measured_ms", "predicted_ms", "low_ms", "high_ms")
    left_out = [n for n in everything if n not in known]
    return {
        "device": device,
        "method": METHOD,
        "n_train": len(fitted),
        "n_test": len(tested),
        "left_out": len(left_out),
        "left_out_networks": left_out,
        "operator_mape": float(np.nanmean(np.concatenate(errors))),
        "score": score(ms, measured, low, high).to_dict(),
        **{name: score(predicted, measured).to_dict() for name, predicted in beside.items()},
        "rows": [dict(zip(names, row, strict=True)) for row in rows],
    }


@dataclass(frozen=True)
class _Kernels:
    """Times of kernels, and what a network adds to them.

    Args:
        regressor: Of kernels alone.
        families: Of kernels that the device has times of.
    """

    regressor: KernelRegressor
    families: frozenset[str]

    def ms(self, network: Network) -> Floats:
        """Time of each listed kernel, predicted; 0 for kinds that the device has no times of."""
        ms = self.regressor.predict_ms(network.kernels)
        return np.where([family(k) in self.families for k in network.kernels], ms, 0.0)

    def sums(self, network: Network, *, measured: bool = False) -> Floats:
        """`kernel_sums.sums` of a network, (features,), over measured or predicted times."""
        ms = self.ms(network)
        if measured:
            ms = np.where(np.isfinite(network.ms), network.ms, ms)
        unlisted_ms = float(self.regressor.predict_ms(network.hidden).sum())
        unusual = self.regressor.unusual(network.kernels)
        return sums(network.kernels, ms, unlisted_ms, unusual)


@dataclass(frozen=True)
class _WholeModel:
    """Kernels and the step from them to the whole."""

    kernels: _Kernels
    whole: KernelSum

    @classmethod
    def fit(cls, train: Sequence[Network], whole_ms: Floats) -> _WholeModel:
        regressor = _fitted(train)
        kernels = _Kernels(regressor, frozenset(family(k) for k in regressor.kernels))
        groups = [_family_of(n.name) for n in train]
        fold = _balanced(groups)
        left_out = np.empty((len(train), len(FEATURES)))
        for k in range(fold.max() + 1):
            rest = [n for n, f in zip(train, fold, strict=True) if f != k]
            part = _Kernels(_fitted(rest, settings=regressor), kernels.families)
            for i in np.flatnonzero(fold == k):
                left_out[i] = part.sums(train[int(i)])
        rows = np.array([kernels.sums(n, measured=True) for n in train])
        return cls(kernels, KernelSum.fit(rows, whole_ms, fold.tolist(), left_out, groups))

    def kernels_ms(self, network: Network) -> Floats:
        """Time of each listed kernel, (kernels,), predicted."""
        return self.kernels.ms(network)

    def predict(self, networks: Sequence[Network]) -> tuple[Floats, Floats]:
        """Time of networks, ms, and relative half-widths of their 90 % intervals, each (n,)."""
        rows = np.array([self.kernels.sums(n) for n in networks])
        ms = self.whole.predict_ms(rows)
        beyond = [self._extrapolated(n, whole) for n, whole in zip(networks, ms, strict=True)]
        return ms, self.whole.half_widths(rows, np.array(beyond))

    def _extrapolated(self, network: Network, whole_ms: float) -> float:
        """What kernels outside the measured range add to the error, relative to the whole."""
        regressor = self.kernels.regressor
        errors = self.kernels_ms(network) * regressor.standard_error(network.kernels)
        outside = np.array([not regressor.reaches(k) for k in network.kernels])
        # Errors of similar kernels are correlated, so they add as they stand.
        return float(np.sum(errors[outside]) / whole_ms)


def _fitted(train: Sequence[Network], settings: KernelRegressor | None = None) -> KernelRegressor:
    sound = None if settings is None else set(settings.kernels)
    listed = [
        (k, ms, v)
        for n in train
        for k, ms, v in zip(n.kernels, n.ms, n.variants, strict=True)
        if np.isfinite(ms) and (sound is None or k in sound)
    ]
    kernels, times, variants = zip(*listed, strict=True)
    return KernelRegressor.fit(kernels, times, variants, settings)


def _family_of(name: str) -> str:
    """Networks whose names begin with the same letters are of one family."""
    letters = re.match(r"[A-Za-z]+", name)
    return letters[0].lower() if letters else name


def _balanced(groups: Sequence[str]) -> npt.NDArray[np.intp]:
    """Folds of whole families, of about equal size, (n,)."""
    sizes = {g: groups.count(g) for g in sorted(set(groups))}
    count = min(_FOLDS, len(sizes))
    filled, fold = [0] * count, {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], g)):
        fold[group] = filled.index(min(filled))
        filled[fold[group]] += sizes[group]
    return np.array([fold[g] for g in groups])


def _baselines(
    train: Sequence[Network], whole: Floats, asked: Sequence[Network], model: _WholeModel
) -> dict[str, Floats]:
    """Predictions of simpler models, by name, each (n,)."""
    macs = [np.array([sum(k.macs for k in n.kernels) / 1e6 for n in s]) for s in (train, asked)]
    known = [(k, ms) for n in train for k, ms in zip(n.kernels, n.ms, strict=True) if ms == ms]
    rows = np.array([_plain(k) for k, _ in known])
    plain = [np.array([_plain(k) for k in n.kernels]) for n in asked]
    target = np.log([ms for _, ms in known])
    trees = tabular.booster(rows, target, np.concatenate(plain), 0)
    ends = np.cumsum([len(p) for p in plain])[:-1]
    boosted = np.array([np.exp(t).sum() for t in np.split(trees, ends)])
    measured = [np.array([np.nansum(n.ms) for n in s]) for s in (train, asked)]
    return {
        "raw_sum": np.array([model.kernels_ms(n).sum() for n in asked]),
        "macs": np.maximum(tabular.relative_line(macs[0], whole, macs[1]), 1e-3),
        "booster": tabular.relative_line(measured[0], whole, boosted),
        "measured_sum": tabular.relative_line(measured[0], whole, measured[1]),
    }


def _plain(kernel: Kernel) -> list[float]:
    return [float(FAMILIES.index(family(kernel))), *features(kernel)]


def _whole_ms(whole: pd.DataFrame, device: str) -> dict[str, float]:
    if "model" not in whole.columns:
        raise UnknownName(f"no column 'model'. {nearest('model', map(str, whole.columns))}")
    mean = f"{device}|mean"
    us = numbers(whole, mean if mean in whole.columns else device)
    return {
        str(n): float(t) * _MICROSECONDS
        for n, t in zip(whole["model"], us, strict=True)
        if np.isfinite(t)
    }
