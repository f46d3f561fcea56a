"""What a device takes for a network of any kind: as its store and its models know it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.measurement import WHOLE
from phonenas.space import Architecture
from phonenas.space.detection.ssdlite import SSDLite
from phonenas.space.errors import NotEnoughData, PhonenasError, StoreError, UncoveredOperator
from phonenas.space.file_inputs import NOT_GIVEN, Given
from phonenas.space.precision import FLOAT32

from .networks import any_network, cut_file, find, is_file, network_file, on_disk, other
from .output import command_line, completed, origin_note, predicted_row, table, uncalibrated_note
from .stores import (
    find_model,
    fitted_path,
    former_kernels,
    known_device,
    open_store,
    refuse_ready,
    stored_model,
)

if TYPE_CHECKING:
    from phonenas.data import MeasurementStore
    from phonenas.data.measurement import Entry, Measurement
    from phonenas.devices import Device
    from phonenas.latency_model import LatencyModel
    from phonenas.report import Reference, Timing
    from phonenas.search import ParetoFront
    from phonenas.search.accuracy import AccuracyEstimator
    from phonenas.search.exported_file import FileLatency
    from phonenas.search.training.export.export import Exported
    from phonenas.space import SearchSpace
    from phonenas.space.graph import NetworkGraph
    from phonenas.space.zoo import Published

    from .options import Output

__all__ = [
    "DeviceTimes",
    "Named",
    "entered_once",
    "file_latency",
    "known_beside",
    "known_lines",
    "named",
    "predictor",
    "published_of",
]


def predictor(
    db: str,
    device: str,
    model: Path | None,
    quiet: bool,
    *,
    kernels: bool = True,
    refit: bool = True,
    precision: str | None = None,
) -> LatencyModel:
    """A device's latency model to predict with; `kernels` says that these are needed.

    What it says of kernels is fitted where it is missing, with `refit` also where the store holds
    newer ones, and written.

    Raises:
        As `find_model`; NotEnoughData also where there is neither a model nor kernels.
    """
    from phonenas.devices import usual_precision
    from phonenas.latency_model import load, ready

    if not kernels or model is not None or device in ready.names():
        return find_model(db, device, model, quiet, precision)
    path, found = stored_model(db, device, precision), None
    kept = load(path) if path.exists() else None
    if "://" in db or Path(db).exists():
        with open_store(db) as store:
            found = _with_newer_kernels(store, device, kept, refit, precision)
            if found is not None and not store.read_only:
                if kept is None:
                    path = fitted_path(db, device, None, found.conditions.precision)
                # As read from the file, which holds fewer digits: each command prints the same.
                found = load(found.save(path))
    if found is not None:
        return found
    if kept is None or (kept.by_operators and kept.kernels is None):
        known_device(device)  # an unknown device is the likelier mistake
        former = former_kernels(path)
        floats = (precision or usual_precision(device)) == FLOAT32
        # Kernels are drawn in float32 alone; those of a file are in its own precision.
        of = ["--kernels", "400"] if floats else ["--kernels-of", "FILE.onnx"]
        raise NotEnoughData(
            f"too few kernels of {device} are measured{'' if floats else f' in {precision}'} to "
            "predict networks that are not of blocks"
            + (f" ({former})" if former else "")
            + ". Measure some:  "
            + command_line("profile", "--device", device, *of, db=db)
        )
    return find_model(db, device, model, quiet, precision)


def _with_newer_kernels(
    store: MeasurementStore,
    device: str,
    kept: LatencyModel | None,
    refit: bool,
    precision: str | None,
) -> LatencyModel | None:
    """The model with its kernels fitted again; None where the store has none that are newer."""
    from phonenas.devices import usual_precision
    from phonenas.latency_model.kernel_fitting import FITTED_ON, fit_kernels
    from phonenas.latency_model.measured_kernels import MeasuredKernels

    part = kept.kernels if kept is not None and kept.by_operators else kept
    if part is None:
        known = [c for c in store.conditions(device, "kernel") if c.mode == "steady"]
        there = [c.precision for c in known]
        of = kept.conditions.precision if kept is not None else precision
        if of is None and (of := usual_precision(device)) not in there and there:
            of = there[-1]
        known = [c for c in known if c.precision == of]
        if not known:
            return None
        conditions = known[-1]
    elif isinstance(part.times, MeasuredKernels):
        conditions = part.conditions
        if not (refit and store.latest(conditions, FITTED_ON).after(part.last)):
            return None
    else:
        return None
    try:
        fitted = fit_kernels(conditions, store.measurements(conditions))
    except NotEnoughData:
        return None
    return replace(kept, kernels=fitted) if kept and kept.by_operators else fitted


_OF_A_FILE = re.compile(r"#[0-9a-f]{12}\Z")  # subjects that are of one precision


@dataclass(frozen=True)
class Named:
    """A network as a user named it.

    Args:
        text: As it was written.
        network: None of a file.
        key: Its name in a store.
        macs, params: Counted; None where a file cannot be cut into kernels.
        size_bytes: Of a file; None of others.
        published: What is published of it.
        given: What the user says of a file's inputs.
    """

    text: str
    network: Architecture | NetworkGraph | SSDLite | None
    key: str
    macs: int | None
    params: int | None
    size_bytes: int | None = None
    published: Published | None = None
    given: Given = NOT_GIVEN


def named(
    text: str, width: float = 1.0, resolution: int | None = None, given: Given = NOT_GIVEN
) -> Named:
    """The network that a user named, of any kind that `phonenas show` takes.

    Raises:
        As `networks.find`, `networks.other` and `networks.network_file`.
    """
    if is_file(text):
        return _file(text, given)
    network = other(text, width, resolution) or find(text, width, resolution)
    key = str(network) if isinstance(network, Architecture) else network.key
    figures = published_of(network)
    return Named(text, network, key, network.macs, network.params, None, figures, given)


def _file(text: str, given: Given) -> Named:
    file, size = network_file(text, given), on_disk(text, given)[0].stat().st_size
    try:
        whole = cut_file(text, given)
    except UncoveredOperator:
        return Named(text, None, file.key, None, None, size, None, given)
    params = sum(k.params for k in whole.kernels)
    return Named(text, None, file.key, whole.macs, params, size, None, given)


def published_of(network: Architecture | NetworkGraph | SSDLite) -> Published | None:
    """The figures of a network as it was published: not at other widths and resolutions."""
    from phonenas.space import zoo

    if not isinstance(network, Architecture):
        return zoo.published(str(network))
    known = (name for name in zoo.names() if zoo.network(name) == network)
    return next((figures for name in known if (figures := zoo.published(name))), None)


@dataclass(frozen=True)
class DeviceTimes:
    """One device: its model, and what its store has measured.

    Args:
        device: Its name.
        model: None where there is none.
        measured: By the subject's name, under the conditions of the model.
        note: Where its times come from, in a sentence; "" for a device that was measured.
        reason: Why there is no model at all; "" where there is one.
        no_kernels: Why it has no kernels.
    """

    device: str
    model: LatencyModel | None
    measured: Mapping[str, Measurement]
    note: str = ""
    reason: str = ""
    no_kernels: str = ""

    @classmethod
    def of(cls, device: str, db: str, output: Output, precision: str | None = None) -> DeviceTimes:
        """As its file and its store are; nothing is fitted for it but missing kernels.

        Args:
            device, db: Its name, and the store.
            output: Of the command.
            precision: What networks compute in that are in no file; None as for `find_model`.

        Raises:
            UnknownName: No such device.
            PhonenasError: The model or the store is damaged.
        """
        model, reason, no_kernels = None, "", ""
        try:
            model = predictor(db, device, None, output.quiet, refit=False, precision=precision)
        except (NotEnoughData, StoreError) as error:
            no_kernels = completed(str(error), db, device, None, precision)
            try:
                model = find_model(db, device, None, output.quiet, precision)
            except NotEnoughData as missing:
                reason = completed(str(missing), db, device, None, precision)
        measured = _measured(db, device, model, precision)
        conditions = [model.conditions] if model is not None else []
        conditions += [m.conditions for m in measured.values()][:1]
        note = origin_note(conditions[0]).strip() if conditions else ""
        if model is not None:
            note = "\n".join(filter(None, (note, uncalibrated_note(model).strip())))
        return cls(device, model, measured, note, reason, no_kernels)

    @classmethod
    def around(cls, model: LatencyModel, db: str) -> DeviceTimes:
        """Of a model in hand, with what the store has measured under its conditions."""
        device, note = model.device, origin_note(model.conditions).strip()
        if model.by_operators and model.kernels is None:
            try:
                of = model.conditions.precision
                found = predictor(db, device, None, True, refit=False, precision=of)
                kernels = found.part_of_kernels
                model = replace(model, kernels=kernels)
            except PhonenasError:
                pass  # without them no graph is predicted
        return cls(device, model, _measured(db, device, model, None), note)

    @property
    def takes_graphs(self) -> bool:
        """Whether it predicts networks that are not of blocks."""
        model = self.model
        return model is not None and not (model.by_operators and model.kernels is None)

    def timing(self, one: Named | PhonenasError) -> Timing:
        """What it takes for a network; the reason where it is not known, or was no network."""
        from phonenas.report.networks import Timing, measured_timing

        if isinstance(one, PhonenasError):
            return Timing(self.device, reason=str(one))
        values: dict[str, Any] = {"device": self.device}
        known = self.measured.get(one.key)
        values |= {} if known is None else measured_timing(known)
        try:
            row, last = self._predicted(one)
        except PhonenasError as error:
            return Timing(**values, reason=str(error))
        if known is None:
            values |= {k: row[k] for k in ("precision", "origin")}
        return Timing(
            **values,
            predicted_ms=row["latency_ms"],
            low_ms=row["low_ms"],
            high_ms=row["high_ms"],
            basis=row["basis"],
            covered=row["covered"],
            fitted_on=known is not None and not known.entry.after(last),
            notes=tuple(row["notes"]),
        )

    def _predicted(self, one: Named) -> tuple[dict[str, Any], Entry]:
        """A row of `phonenas predict`, and the last entry that its model was fitted on.

        Raises:
            PhonenasError: Nothing predicts it.
        """
        if self.model is None:
            raise NotEnoughData(self.reason or self.no_kernels)
        if not (self.takes_graphs or isinstance(one.network, Architecture)):
            raise NotEnoughData(self.no_kernels)
        named = Path(one.text.strip()) if one.network is None else one.network
        network = any_network(one.text, named, self.model, one.given)
        row = predicted_row(self.model, one.text, network, False, None)
        basis = "whole networks" if row["whole_networks"] else row["basis"]
        return {**row, "basis": basis}, self.model.part(network).last


def _measured(
    db: str, device: str, known: LatencyModel | None, precision: str | None
) -> dict[str, Measurement]:
    """Whole networks of a store by the subject's name: the latest under the model's conditions.

    A file may compute in another precision than the model; without a model the conditions count
    under which the device would be fitted.
    """
    from phonenas.devices import usual_precision
    from phonenas.latency_model.fitting import choose_conditions

    if "://" not in db and not Path(db).exists():
        return {}
    with open_store(db) as store:
        if known is not None:
            own = known.conditions
        else:
            try:
                usual = usual_precision(device)
                own, _ = choose_conditions(store, device, None, precision, usual=usual)
            except NotEnoughData:
                return {}
        every = [c for c in store.conditions(device) if replace(c, precision=own.precision) == own]
        return {
            m.subject: m
            for c in every
            for kind in WHOLE
            for m in store.measurements(c, kind)
            if c == own or _OF_A_FILE.search(m.subject)
        }


def known_beside(
    front: ParetoFront,
    space: SearchSpace,
    devices: Sequence[DeviceTimes],
    estimator: AccuracyEstimator,
) -> tuple[Reference, ...]:
    """The known networks beside a search's front, on one device or several; see
    `report.references`.

    They are estimated as the front's networks are: a published top-1 is after another training.
    Networks that are not of blocks take part where the estimator and the device's models take them.
    """
    from phonenas.report import Top1
    from phonenas.report.networks import estimates
    from phonenas.report.references import beside
    from phonenas.space import zoo
    from phonenas.space.architecture import CLASSES

    px = space.resolution_px
    if space.classes != CLASSES:
        return ()
    known: list[tuple[str, Architecture | NetworkGraph]] = [
        (name, zoo.network(name, 1.0, px)) for name in zoo.names() if zoo.published(name)
    ]
    most = 3 * max((c.macs for c in front), default=0)
    if all(times.takes_graphs for times in devices):
        own = [zoo.graph(name) for name in zoo.graph_names() if zoo.published(name)]
        known += [
            (g.name, g)
            for g in own
            if g.resolution_px == px and g.macs <= most and estimates(g, estimator)
        ]

    def top1_of(network: Architecture | NetworkGraph) -> Top1 | None:
        try:
            return Top1.by(estimator, network)
        except PhonenasError:
            return None  # it cannot speak of this network

    def time_of(times: DeviceTimes, network: Architecture | NetworkGraph) -> Timing:
        key = str(network)
        return times.timing(Named(key, network, key, network.macs, network.params))

    first, *others = (partial(time_of, times) for times in devices)
    names = [f"latency:{times.device}" for times in devices[1:]]
    return beside(front, known, first, top1_of, dict(zip(names, others, strict=True)))


def known_lines(gained: str, known: Sequence[Reference], sign: str) -> list[str]:
    """What a search gained, and the known networks beside its front, for a terminal.

    Args:
        gained: As `gain_sentence` says it.
        known: As `known_beside` or `read_references` gives them.
        sign: Of a measured latency.
    """
    from phonenas.report.references import reference_rows, reference_titles

    if not known:
        return []
    shown = table(reference_titles(known), reference_rows(known, sign))
    return [*([f"{gained}."] if gained else []), "", shown, ""]


def entered_once(name: str) -> Device:
    """A device by its name, entered for a moment: a wrong one is found before a long job.

    Raises:
        UnknownName, InvalidArgument, DeviceUnavailable, DeviceError: As `devices.connect` and
            `Device.__enter__`; or it is a ready phone.
    """
    from phonenas.devices import connect

    refuse_ready(name)
    device = connect(name)
    with device:
        return device


def file_latency(output: Output, exported: Exported, device: Device, db: str) -> FileLatency:
    """Exported files on a device, those in its precision first, into a store that is made where
    there is none.

    Raises:
        UnstableDevice, DeviceUnavailable, StoreError: As `measure_file`.
    """
    from phonenas.search.validation.validate import measure_file

    from .progress import Bars

    with open_store(db, create=True) as store, device as phone, Bars(output.quiet) as bars:
        bars.timed_by(phone.conditions)
        file = exported.file_in(phone.conditions.precision)
        return measure_file(file, on=phone, into=store, on_event=bars.profiling)
