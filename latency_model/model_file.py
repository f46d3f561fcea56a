"""Latency models as files: versioned JSON, checked when read; a file for each precision."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta

from phonenas.data.documents import Count, Ms, Share, Text, strict
from phonenas.data.measurement import NO_ENTRY, Conditions, Entry
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData
from phonenas.space.naming import plain_name
from phonenas.space.precision import FLOAT32

from .additive.times import KernelTimes
from .calibration import Calibration
from .lookup_table import LookupTable
from .measured_kernels import MeasuredKernels
from .metrics import Score
from .model import DOCUMENT, Examined, LatencyModel, OperatorTimes
from .outliers import Outlier
from .units.regressor import regressor_from_dict

__all__ = ["load", "model_path", "precisions_there"]

_LONGEST = 60  # characters of a precision in a file's name: imported tables may have any text


class _File(msgspec.Struct):
    conditions: Conditions
    date: Text
    until: Text
    measurements: Count
    alike: Share
    operators: dict[Text, tuple[Ms, Annotated[float, Meta(ge=0, le=1e9)] | None]]
    calibration: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    examined: list[tuple[Text, Ms, Ms, Ms, Ms]]
    regressor: dict[str, Any] | None
    last: Entry = NO_ENTRY
    outliers: tuple[Outlier, ...] = ()
    kernels: dict[str, Any] | None = None
    by_family: dict[Text, dict[str, Any]] = {}
    source: dict[Text, Text] = {}
    measured_kernels: dict[str, Any] | None = None
    beside: dict[str, Any] | None = None


def model_path(db: str, device: str, precision: str = FLOAT32) -> Path:
    """Where a store's latency model of a device lies: beside a file, or in this folder.

    No two of them lie at one place: no device's name moves what stands behind `.model`.

    >>> model_path("lab.db", "pixel6").name, model_path("lab.db", "pixel6", "int8").name
    ('lab.pixel6.model.json', 'lab.pixel6.model.int8.json')

    Args:
        db: The store: a path, or a URL.
        device: Its name.
        precision: Of the model's conditions.
    Raises:
        InvalidArgument: The device's name is none, and could lead to another folder.
    """
    plain_name(device, "the device of a latency model")
    named = quote(precision, safe="+").replace(".", "%2E")
    if len(named) > _LONGEST or named == "model":  # which a device's name may end in
        named = hashlib.sha256(precision.encode()).hexdigest()
    ending = ".json" if precision == FLOAT32 else f".{named}.json"
    if "://" in db:
        return Path(f"phonenas.{device}.model{ending}")
    path = Path(db)
    return path.with_name(f"{path.stem}.{device}.model{ending}")


def precisions_there(db: str, device: str) -> dict[str, Path]:
    """The files that `model_path` names and that exist, by what their names say of precision."""
    plain = model_path(db, device)
    before = plain.name.removesuffix(".json")
    found = {FLOAT32: plain} if plain.exists() else {}
    for path in sorted(plain.parent.glob(f"{glob.escape(before)}.*.json")):
        named = path.name[len(before) + 1 :].removesuffix(".json")
        if "." not in named and named != "model":  # of a device whose name goes on so
            found[unquote(named)] = path
    return found


def load(path: str | Path) -> LatencyModel:
    """Read a model that `LatencyModel.save` wrote.

    Raises:
        NotEnoughData: There is no such file.
        UnsupportedFormat: Not such a file, damaged, or of another version (both are named).
    """
    path = Path(path)
    again = "Fit it again:  phonenas fit"
    if path.name.endswith(".kernels.json"):
        again = f"Kernels are part of the latency model's file. {again}"
    values = DOCUMENT.read(path, again)
    if values is None:
        raise NotEnoughData(
            f"there is no latency model at {path}. Fit one:  phonenas fit --device local"
        )
    with DOCUMENT.checking(path, again):
        file = strict(values, _File)
        trees = (file.regressor or {}).get("trees") or file.measured_kernels or file.beside
        if "digest" not in values and trees:
            # LightGBM ends the process on some texts that are not whole.
            raise ValueError("it holds trees, and no digest of its content")
        kernels = None if file.beside is None else strict(file.beside, _File)
        if kernels is not None and (kernels.measured_kernels is None or kernels.beside is not None):
            raise ValueError("beside the model of operators stands none of kernels")
        return _model(file, None if kernels is None else _model(kernels, None))


def _model(file: _File, kernels: LatencyModel | None) -> LatencyModel:
    return LatencyModel(
        times=_times(file),
        calibration=Calibration.from_dict(file.calibration),
        examined=tuple(Examined(*row) for row in file.examined),
        scores={name: Score.from_dict(s) for name, s in file.scores.items()},
        measurements=file.measurements,
        until=file.until,
        outliers=file.outliers,
        last=file.last,
        by_family={name: Score.from_dict(s) for name, s in file.by_family.items()},
        source=file.source,
        kernels=kernels,
    )


def _times(file: _File) -> OperatorTimes | MeasuredKernels | KernelTimes:
    if file.measured_kernels is not None:
        return MeasuredKernels.from_dict(file.conditions, file.measured_kernels)
    if file.kernels is not None:
        return KernelTimes.from_dict(file.conditions, file.kernels)
    return OperatorTimes(
        conditions=file.conditions,
        table=_table(file.operators, file.date),
        regressor=regressor_from_dict(file.regressor) if file.regressor else None,
        error_correlation=file.alike,
    )


def _table(operators: Mapping[str, tuple[float, float | None]], date: str) -> LookupTable:
    rows = {Operator.parse(k): v for k, v in operators.items()}
    return LookupTable(
        {o: ms for o, (ms, _) in rows.items()},
        {o: float("nan") if spread is None else spread for o, (_, spread) in rows.items()},
        date,
    )
