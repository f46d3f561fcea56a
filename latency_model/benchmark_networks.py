"""Operators of some networks teach, other networks are predicted whole: an examination on tables.

Two tables with named columns, as the edge benchmark has them: one row an operator (`model`,
`operation`, `feature`, a time a device, the kernel that ran), and one row a network.

What is read of an examined network is its graph: its operators' shapes, their order, which
activations and additions are folded into which kernel, and, from the numbers that the runtime
gives to nodes, where operations stand that have no row. Never its times, and not which code the
runtime took (winograd and the like): that is predicted from shapes, as the teaching networks show.
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

from ..space.errors import NotEnoughData, UnknownName, UnsupportedFormat, nearest
from ..space.kernel import Kernel, KernelKind
from . import tabular
from .benchmark import numbers
from .kernel_features import FAMILIES, family, features
from .kernel_model import KernelRegressor
from .kernel_networks import FEATURES, KernelSum, sums
from .metrics import score

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Network", "networks", "read_networks"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_MICROSECONDS = 1e-3  # ms; the tables' unit
_ACTIVATIONS = {
    "aten::relu": "relu", "aten::clamp": "relu6", "aten::hardswish": "hard_swish",
    "aten::sigmoid": "sigmoid",
}  # fmt: skip
_ONE: dict[str, KernelKind] = dict.fromkeys(_ACTIVATIONS, "activation")
_KINDS: dict[str, KernelKind] = _ONE | {
    "CONV_2D": "conv", "CONV_2D_GROUP": "conv", "DEPTHWISE_CONV_2D": "conv",
    "vulkan_prepack::run_conv2d_context": "conv", "FULLY_CONNECTED": "linear",
    "vulkan_prepack::run_linear_context": "linear", "MEAN": "global_pool",
    "aten::adaptive_avg_pool2d": "global_pool", "AVERAGE_POOL_2D": "average_pool",
    "aten::avg_pool2d": "average_pool", "MAX_POOL_2D": "max_pool", "aten::max_pool2d": "max_pool",
    "CONCATENATION": "concat", "aten::add": "add", "aten::mul": "mul",
    "vulkan_prepack::run_batchnorm_context": "batch_norm",
}  # fmt: skip
_LINKED = re.compile(r"linked_:_([a-z_]+?)_\d+", re.ASCII)
_NUMBERS = re.compile(r"_(\d+)(?=_|$)", re.ASCII)
_FOLDS = 5
_TEACHERS = 10  # networks; fewer teach no step from kernels to the whole


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
            tells, columns that end in `kernel`.
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
    own = f"{device.rsplit('|', 1)[0]}|kernel"
    told = [[str(v) for v in operators[c].fillna("")] for c in named]
    variants = told[named.index(own)] if own in named else [""] * len(operators)
    rows: dict[str, list[tuple[Kernel, float, str, list[int], bool]]] = {}
    cells = zip(operators["model"], operators["operation"], operators["feature"], strict=True)
    for i, (model, operation, feature) in enumerate(cells):
        # Another device's column tells the same graph where this one's code has lost the names.
        names = [column[i] for column in told]
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
            tuple(r[0] for r in found),
            np.array([r[1] for r in found]),
            tuple(r[2] for r in found),
            _hidden([(r[0], r[3], r[4]) for r in found]),
        )
        for name, found in rows.items()
    }


def _kernel(operation: str, feature: str, linked: Sequence[str]) -> tuple[Kernel, bool]:
    """The kernel of a row, and whether its input was padded by a node of its own."""
    kind = _KINDS[operation]
    values = json.loads(feature.replace("'", '"'))
    told = {str(k).lower(): v for k, v in values.items() if v != "-"}

    def number(*names: str, default: int | None = None) -> int:
        found = next((told[n] for n in names if n in told), default)
        if found is None:
            raise KeyError(names[0])
        return int(found)

    # A folded product is one by constants (a scale, a hard sigmoid), and so is all behind it.
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
        kind, channels, makes, (inside, inside), (out, out), (window, window), (stride, stride),
        groups, 1, fused,
    )  # fmt: skip
    return kernel, inside < size


def _hidden(rows: Sequence[tuple[Kernel, list[int], bool]]) -> tuple[Kernel, ...]:
    """Operations without a row: each run of numbers that no row bears is one more launch.

    It stands before the row with the next number, over that row's input; a padding is folded.
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
    found = []
    for kernel, nodes, padded in rows:
        count = runs.pop(nodes[0], 0) - padded if nodes else 0
        if count > 0:
            c, px = kernel.in_channels, kernel.in_px
            found.append(Kernel("mul", c, c, px, px))
    return tuple(found)


def networks(
    operators: pd.DataFrame,
    whole: pd.DataFrame,
    *,
    device: str,
    test: Sequence[str],
) -> Row:
    """Predict networks whole whose operators nobody measured.

    Args:
        operators: One row an operator, as `read_networks` reads them.
        whole: One row a network: `model`, its time in `device` or `device|mean`, µs.
        device: The column of times.
        test: Shell patterns of the networks to predict; all others teach.
    Returns:
        `n_train`, `n_test`; `operator_mape` on the examined networks' operators; `score` with its
        interval, `raw_sum` (predicted operators, no more), `macs` (a straight line in
        multiply-adds), `booster` (plain trees on operators and a straight line), `measured_sum`
        (a straight line in the sum of operators as measured: what no prediction has); `rows`, one
        a network; `left_out`, networks without a time.
    Raises:
        UnknownName, UnsupportedFormat, InvalidArgument, NotEnoughData: A column, a row or a
            pattern is amiss.
    """
    everything = read_networks(operators, device)
    times = _whole_ms(whole, device)
    known = [n for n in everything if n in times and np.isfinite(everything[n].ms).any()]
    asked = [n for n in known if any(fnmatchcase(n, p) for p in test)]
    for pattern in test:
        if not any(fnmatchcase(n, pattern) for n in everything):
            raise UnknownName(
                f"test: no network matches {pattern!r}. {nearest(pattern, everything)}"
            )
    taught = [n for n in known if n not in asked]
    if not asked or len(taught) < _TEACHERS:
        raise NotEnoughData(
            f"{len(asked)} networks to predict and {len(taught)} that teach; it takes 1 and "
            f"{_TEACHERS}"
        )
    teachers, tested = [everything[n] for n in taught], [everything[n] for n in asked]
    model = _Step.fit(teachers, [times[n] for n in taught])
    measured = np.array([times[n] for n in asked])
    found, half = model.predict(tested)
    off = [np.abs(p / n.ms - 1) for p, n in zip(map(model.kernels_ms, tested), tested, strict=True)]
    beside = _baselines(teachers, np.array([times[n] for n in taught]), tested, model)
    scored = score(found, measured, found / (1 + half), found * (1 + half))
    rows = zip(asked, measured, found, found / (1 + half), found * (1 + half), strict=True)
    return {
        "device": device,
        "n_train": len(taught),
        "n_test": len(asked),
        "left_out": len(everything) - len(known),
        "operator_mape": float(np.nanmean(np.concatenate(off))),
        "score": scored.to_dict(),
        **{name: score(predicted, measured).to_dict() for name, predicted in beside.items()},
        "rows": [
            {"network": n, "measured_ms": m, "predicted_ms": p, "low_ms": low, "high_ms": high}
            for n, m, p, low, high in ((n, *map(float, r)) for n, *r in rows)
        ],
    }


@dataclass(frozen=True)
class _Step:
    """Kernels and the step from them to the whole, as some networks teach them."""

    regressor: KernelRegressor
    whole: KernelSum
    families: frozenset[str]

    @classmethod
    def fit(cls, teachers: Sequence[Network], whole_ms: Sequence[float]) -> _Step:
        regressor = _taught(teachers)
        families = frozenset(family(k) for k in regressor.kernels)
        step = cls(regressor, None, families)  # type: ignore[arg-type]
        groups = [_family_of(n.name) for n in teachers]
        fold = _balanced(groups)
        held_out = np.empty((len(teachers), len(FEATURES)))
        for held in range(fold.max() + 1):
            part_of = [n for n, f in zip(teachers, fold, strict=True) if f != held]
            seen = _taught(part_of, like=regressor)
            part = cls(seen, None, families)  # type: ignore[arg-type]
            for i in np.flatnonzero(fold == held):
                held_out[i] = part.sums(teachers[int(i)])
        rows = np.array([step.sums(n, measured=True) for n in teachers])
        whole = KernelSum.fit(rows, whole_ms, fold.tolist(), held_out, groups)
        return cls(regressor, whole, families)

    def kernels_ms(self, network: Network) -> Floats:
        """Time of each listed kernel, predicted; 0 for kinds that the device has no times of."""
        found = self.regressor.predict_ms(network.kernels)
        return np.where([family(k) in self.families for k in network.kernels], found, 0.0)

    def sums(self, network: Network, *, measured: bool = False) -> Floats:
        ms = self.kernels_ms(network)
        if measured:
            ms = np.where(np.isfinite(network.ms), network.ms, ms)
        unlisted_ms = float(self.regressor.predict_ms(network.hidden).sum())
        unusual = self.regressor.unusual(network.kernels)
        return sums(network.kernels, ms, unlisted_ms, unusual)

    def predict(self, asked: Sequence[Network]) -> tuple[Floats, Floats]:
        """Time of networks, ms, and relative half-widths of their 90 % intervals, each (n,)."""
        rows = np.array([self.sums(n) for n in asked])
        found = self.whole.predict_ms(rows)
        beyond = np.array([self._beyond(n, whole) for n, whole in zip(asked, found, strict=True)])
        return found, self.whole.half_widths(rows, beyond)

    def _beyond(self, network: Network, whole_ms: float) -> float:
        """What kernels outside the taught range add in doubt, relative to the whole."""
        ms, doubt = self.kernels_ms(network), self.regressor.doubt(network.kernels)
        outside = np.array([not self.regressor.reaches(k) for k in network.kernels])
        # Alike kernels err alike, so their doubts add as they stand.
        return float(np.sum((ms * doubt)[outside]) / whole_ms)


def _taught(teachers: Sequence[Network], like: KernelRegressor | None = None) -> KernelRegressor:
    sound = None if like is None else set(like.kernels)
    listed = [
        (k, ms, v)
        for n in teachers
        for k, ms, v in zip(n.kernels, n.ms, n.variants, strict=True)
        if np.isfinite(ms) and (sound is None or k in sound)
    ]
    kernels, times, variants = zip(*listed, strict=True)
    return KernelRegressor.fit(kernels, times, variants, like)


def _family_of(name: str) -> str:
    """Networks that share the letters their names begin with are of one family."""
    found = re.match(r"[A-Za-z]+", name)
    return found[0].lower() if found else name


def _balanced(groups: Sequence[str]) -> npt.NDArray[np.intp]:
    """Folds of whole families, alike in size, (n,)."""
    sizes = {g: groups.count(g) for g in sorted(set(groups))}
    count = min(_FOLDS, len(sizes))
    filled, place = [0] * count, {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], g)):
        place[group] = filled.index(min(filled))
        filled[place[group]] += sizes[group]
    return np.array([place[g] for g in groups])


def _baselines(
    teachers: Sequence[Network], whole: Floats, asked: Sequence[Network], model: _Step
) -> dict[str, Floats]:
    """Predictions of simpler means, by name, each (n,)."""
    macs = [np.array([sum(k.macs for k in n.kernels) / 1e6 for n in s]) for s in (teachers, asked)]
    known = [(k, ms) for n in teachers for k, ms in zip(n.kernels, n.ms, strict=True) if ms == ms]
    rows = np.array([_plain(k) for k, _ in known])
    plain = [np.array([_plain(k) for k in n.kernels]) for n in asked]
    target = np.log([ms for _, ms in known])
    trees = tabular.booster(rows, target, np.concatenate(plain), 0)
    ends = np.cumsum([len(p) for p in plain])[:-1]
    boosted = np.array([np.exp(t).sum() for t in np.split(trees, ends)])
    taught, tested = (
        np.array([np.nansum(n.ms) for n in networks]) for networks in (teachers, asked)
    )
    return {
        "raw_sum": np.array([model.kernels_ms(n).sum() for n in asked]),
        "macs": np.maximum(_relative_line(macs[0], whole, macs[1]), 1e-3),
        "booster": _relative_line(taught, whole, boosted),
        "measured_sum": _relative_line(taught, whole, tested),
    }


def _plain(kernel: Kernel) -> list[float]:
    return [float(FAMILIES.index(family(kernel))), *features(kernel)]


def _relative_line(column: Floats, target: Floats, asked: Floats) -> Floats:
    """A straight line by least squares of the relative error."""
    rows = np.column_stack([column, np.ones_like(column)]) / target[:, None]
    slope, start = np.linalg.lstsq(rows, np.ones_like(target), rcond=None)[0]
    found: Floats = slope * asked + start
    return found


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
