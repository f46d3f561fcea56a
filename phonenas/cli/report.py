"""The commands that set things side by side: report (runs), compare (networks), trace (nodes)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import Incomplete, InvalidArgument, PhonenasError, UnsupportedFormat
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32

from .accuracy import estimating
from .options import (
    NETWORK,
    DeviceName,
    DeviceNames,
    EstimatorOptions,
    InputFile,
    ModelFile,
    Output,
    OwnResolution,
    Precision,
    Shapes,
    Threads,
    Width,
    command,
)
from .output import figures_table, table

if TYPE_CHECKING:
    from phonenas.devices.node_times import Trace
    from phonenas.latency_model.graphs.onnx_layout import Step
    from phonenas.latency_model.predicted import Explained
    from phonenas.report import Compared, NetworkRow, Timing, Top1
    from phonenas.report.node_trace import TracedNode, TracedPart
    from phonenas.search.accuracy import AccuracyEstimator
    from phonenas.space.file_inputs import Given

    from .timing import Named

__all__ = ["compare", "report", "trace"]

_LONGEST = 40  # characters of a network's text, in a table


@command
def report(
    output: Output,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file; default report.html, or comparison.html of several, in the first RUN."
        ),
    ] = None,
) -> None:
    """Write a run, or several compared, as one self-contained page that opens offline."""
    if len(runs) == 1:
        from phonenas.report import write_report

        path = write_report(runs[0], out)
        output.print(str(path), lambda: str(path))
        return
    from phonenas.report import comparison_page as comparison

    path, compared = comparison.write_comparison(runs, out)

    def text() -> str:
        tables = (table(titles, rows) for titles, rows in comparison.tables(compared))
        return "\n\n".join([*comparison.notes(compared), *tables, f"written to {path}"])

    output.print(comparison.as_json(compared, path), text)
    if compared.left_out:
        raise UnsupportedFormat(
            f"{len(compared.left_out)} of {len(runs)} runs are left out: "
            + "; ".join(compared.left_out)
        )


@command
def compare(
    output: Output,
    db: str,
    network: Annotated[
        list[str],
        typer.Argument(metavar="NETWORK...", help=f"{NETWORK} An .onnx file, or ssdlite:NAME."),
    ],
    estimator: EstimatorOptions,
    device: DeviceNames = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    shape: Shapes = None,
    input_: InputFile = None,
    precision: Precision = None,
    out: Annotated[Path | None, typer.Option(help="Also write it as an HTML page.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the rows to this file.")] = None,
) -> None:
    """Set networks side by side: accuracy, size, and latency on each device."""
    from phonenas import space as spaces
    from phonenas.data.files import refuse_other, write_atomic
    from phonenas.report import Compared
    from phonenas.report import networks_text as n

    from .networks import given_inputs
    from .timing import DeviceTimes, Named, named

    for file in (out, csv):
        if file is not None:
            refuse_other(file)
    texts = [text.strip() for text in network]
    if twice := [t for i, t in enumerate(texts) if t in texts[:i]]:
        raise InvalidArgument(f"each network once; given twice: {', '.join(twice)}")
    given = given_inputs(output, texts, shape, resolution, input_)
    places = list(dict.fromkeys(device or ["local"]))
    times = [DeviceTimes.of(name, db, output, precision) for name in places]
    found: list[Named | PhonenasError] = []
    for text in texts:
        try:
            found.append(named(text, width, resolution, given))
        except PhonenasError as error:
            found.append(error)
    near = next((f.network for f in found if isinstance(f, Named) and f.network is not None), None)
    px = getattr(near, "resolution_px", 224)
    zero_cost = estimator.accuracy.partition(":")[0] == "zero_cost"
    with estimating(output, estimator, spaces.get("mnasnet", px) if zero_cost else None) as how:
        estimates = _estimates(how, found)
        scale = how.note
    rows = [
        _row(text, one, estimate, [t.timing(one) for t in times])
        for text, one, estimate in zip(texts, found, estimates, strict=True)
    ]
    compared = Compared(tuple(rows), tuple(places), tuple(t.note for t in times), scale)
    result = n.as_json(compared)
    for key, file in (("page", out), ("csv", csv)):
        result[key] = None if file is None else str(file)
    if out is not None:
        from phonenas.report import networks_page

        write_atomic(out, networks_page(compared))
    if csv is not None:
        from phonenas.data.export import to_csv

        write_atomic(csv, to_csv(compared.to_frame()))
    written = [f"written to {file}" for file in (out, csv) if file is not None]
    output.print(result, lambda: "\n".join([_text(compared), *written]))
    if all(row.failed for row in rows):
        raise Incomplete(f"no latency of {counted(len(rows), 'network')} is known: see the reasons")


def _estimates(
    estimator: AccuracyEstimator, found: Sequence[Named | PhonenasError]
) -> list[Top1 | str | None]:
    """The estimated top-1 of each network, or why there is none; None for what is no classifier."""
    from phonenas.report import Top1
    from phonenas.report.networks import estimates

    from .timing import Named

    known: list[Top1 | str | None] = [None] * len(found)
    for i, one in enumerate(found):
        # One by one: what it refuses for one network it may give for the others.
        if isinstance(one, Named) and estimates(one.network, estimator):
            try:
                known[i] = Top1.by(estimator, one.network)
            except PhonenasError as error:
                known[i] = str(error)
    return known


def _row(
    text: str, one: Named | PhonenasError, estimate: Top1 | str | None, timings: Sequence[Timing]
) -> NetworkRow:
    from phonenas.report import NetworkRow, Top1
    from phonenas.space import Architecture
    from phonenas.space.graph import NetworkGraph
    from phonenas.space.precision import weight_bytes

    if isinstance(one, PhonenasError):
        return NetworkRow(text, timings=tuple(timings))
    network, published = one.network, one.published
    own: dict[str, Any] = {}
    if isinstance(network, Architecture | NetworkGraph):
        own = {"resolution_px": network.resolution_px, "classes": network.classes}
        if published is not None:
            own["published"] = Top1.published(published.top1, published.source)
    if isinstance(network, Architecture):
        own["peak_activation_bytes"] = 4 * max(o.peak_activations for o in network.operators())
    size, stored = one.size_bytes, one.size_bytes is not None
    if size is None and one.params is not None:
        size = one.params * weight_bytes(timings[0].precision if timings else "")
    return NetworkRow(
        text,
        "" if network is None else str(network),
        one.macs,
        one.params,
        size_bytes=size,
        stored=stored,
        estimated=None if isinstance(estimate, str) else estimate,
        no_estimate=estimate if isinstance(estimate, str) else "",
        timings=tuple(timings),
        **own,
    )


# -- text -------------------------------------------------------------------------------------


def _text(compared: Compared) -> str:
    from phonenas.report import networks_text as n
    from phonenas.report.networks import against

    several = len(compared.devices) > 1
    header = ["network", "top-1 published", "top-1 estimated" + "*" * bool(compared.scale), ""]
    header += ["MACs", "parameters", "size", *(["device"] if several else []), "precision"]
    origins = {t.origin for r in compared.rows for t in r.timings if t.measured_ms is not None}
    header += [origins.pop() if len(origins) == 1 else "measured"]
    header += ["predicted", "90 % interval", "than the first"]
    rows = []
    for row in compared.rows:
        for place, t in enumerate(row.timings):
            ratio = against(compared, row, place)
            mark = "●" if t.origin == "measured" else "◌"
            rows.append(
                [
                    *(_cells(row) if place == 0 else [""] * 7),
                    *([t.device] if several else []),
                    t.precision,
                    "" if t.measured_ms is None else f"{mark} {_ms(t.measured_ms)}{_spread(t)}",
                    "" if t.predicted_ms is None else f"○ {_ms(t.predicted_ms)}",
                    "" if t.low_ms is None else f"{t.low_ms:.3g} to {t.high_ms:.3g}",
                    "" if ratio is None else f"×{ratio.times:.2f} {ratio.verdict}",
                ]
            )
    kept = [i for i in range(len(header)) if any(r[i] for r in rows)]
    lines = [table([header[i] for i in kept], [[r[i] for i in kept] for r in rows]), ""]
    for place, device in enumerate(compared.devices):
        taken = [(r.name, r.timings[place]) for r in compared.rows]
        known = [(name, vars(t)) for name, t in taken if t.measured_ms is not None]
        sign = "●" if all(t.origin == "measured" for _, t in taken) else "◌"
        shown = figures_table(known, sign, f"network on {device}" if several else "network")
        lines += [shown, ""] if shown else []
    lines += n.reasons(compared)
    for place in range(len(compared.devices)):
        lines += n.sentences(compared, place)
    lines += [f"* {compared.scale}"] if compared.scale else []
    return "\n".join([*lines, *(note for note in compared.notes if note)])


def _cells(row: NetworkRow) -> list[str]:
    published, estimated = row.published, row.estimated
    return [
        row.name if len(row.name) <= _LONGEST else f"{row.name[: _LONGEST - 1]}…",
        "" if published is None else f"{published.top1:.1%}",
        "" if estimated is None else f"○ {estimated.top1:.1%} ±{estimated.error:.1%}",
        "extrapolated" if estimated is not None and estimated.outside else "",
        "" if row.macs is None else f"{row.macs / 1e6:,.0f} M",
        "" if row.params is None else f"{row.params / 1e6:.2f} M",
        "" if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f} MB",
    ]


def _ms(ms: float) -> str:
    return f"{ms:.2f} ms" if ms >= 1 else f"{ms:.3f} ms"


def _spread(t: Timing) -> str:
    return "" if t.spread is None else f" ±{t.spread:.1%}"


@command
def trace(
    output: Output,
    db: str,
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help=f"{NETWORK} An .onnx, .tflite or .pt2 file, module:Name of torch, ssdlite:NAME.",
        ),
    ],
    device: DeviceName = "local",
    out: Annotated[
        Path | None, typer.Option(help="Write a trace that ui.perfetto.dev opens, .json.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run's folder, whose report then shows the trace.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=1001, help="Runs that the times are of.")] = 21,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    shape: Shapes = None,
    input_: InputFile = None,
    threads: Threads = None,
    model: ModelFile = None,
) -> None:
    """Run a network under its runtime's profiler: the time of each node, beside the model's."""
    import json

    from phonenas.data.files import TemporaryFolder, write_atomic
    from phonenas.devices import connect, usual_precision
    from phonenas.report.node_trace import chrome_document, traced
    from phonenas.report.traces import KeptTrace, keep_trace, refuse_device
    from phonenas.search.run_folder import load

    from .networks import file_precision, given_inputs, is_file, named, network_file
    from .stores import refuse_ready

    refuse_ready(device)
    kept_in = None if run is None else load(run)
    if kept_in is not None:
        refuse_device(kept_in, device)
    given = given_inputs(output, [network], shape, resolution, input_)
    found = named(network, width, resolution)
    subject = network_file(network, given) if is_file(network) else found
    own = file_precision(found, given)
    precision = own or usual_precision(device)
    shares, no_model = _shares(output, db, network, found, device, model, given, precision)
    with connect(device, threads=threads) as phone, TemporaryFolder() as folder:
        lowered = {} if own or precision == FLOAT32 else {"precision": precision}
        file = phone.lower(subject, folder / "traced", **lowered)
        profile = phone.trace(file, runs)
        nodes, parts = traced(profile, _steps_of(file), shares)
        conditions = replace(phone.conditions, precision=precision)
    document = chrome_document(profile, nodes, parts, f"{network} on {device}")
    if out is not None:
        write_atomic(out, json.dumps(document) + "\n")
    if kept_in is not None:
        keep_trace(kept_in, KeptTrace.of(network, conditions, profile, nodes, parts))
    names = ("runs", "statistic", "plain_ms", "profiled_ms", "nodes_ms")
    result = {
        "network": network,
        **{name: getattr(profile, name) for name in names},
        "nodes": [
            {**asdict(n.time), "consists_of": list(n.consists_of), "part": n.part} for n in nodes
        ],
        "parts": [asdict(p) for p in parts],
        "no_model": no_model,
        "conditions": conditions.to_dict(),
        "trace": None if out is None else str(out),
        "run": None if run is None else str(run),
    }
    output.print(result, lambda: _traced_text(profile, nodes, parts, no_model, out, run))


def _shares(
    output: Output,
    db: str,
    text: str,
    network: Any,
    device: str,
    model: Path | None,
    given: Given,
    precision: str,
) -> tuple[Sequence[Explained], str]:
    """What the device's model of a precision says of a network; and why it says nothing."""
    from phonenas.space import Architecture

    from .networks import any_network
    from .timing import predictor

    try:
        blocks = isinstance(network, Architecture)
        asked = {"kernels": not blocks, "refit": False}
        fitted = predictor(db, device, model, output.quiet, precision=precision, **asked)
        return fitted.explain(any_network(text, network, fitted, given)), ""
    except PhonenasError as error:
        if model is not None:
            raise
        return (), str(error)


def _steps_of(file: Path) -> Sequence[Step]:
    """The kernels of a file; none of one that cannot be cut."""
    from phonenas.latency_model.graphs.onnx_cut import cut
    from phonenas.latency_model.graphs.tflite_cut import cut_tflite

    try:
        return (cut_tflite if file.suffix == ".tflite" else cut)(file).steps
    except PhonenasError:
        return ()


def _traced_text(
    profile: Trace,
    nodes: Sequence[TracedNode],
    parts: Sequence[TracedPart],
    no_model: str,
    out: Path | None,
    run: Path | None,
) -> str:
    header = ["node", "operation", "provider", "ms", "share", "model", "consists of"]
    rows, told = [], set[int]()
    for n in nodes:
        predicted = ""
        if n.part is not None and n.part not in told:
            told.add(n.part)
            predicted = f"○ {parts[n.part].model_ms:.3f}"
        share = f"{n.time.ms / profile.nodes_ms:.1%}" if profile.nodes_ms else "–"
        row = [n.time.name, n.time.op, n.time.provider, f"● {n.time.ms:.3f}", share]
        rows.append([*row, predicted, ", ".join(n.consists_of)])
    rest = max(0.0, profile.profiled_ms - profile.nodes_ms)  # medians may add up to more
    lines = [
        table(header, rows),
        "",
        f"● {profile.plain_ms:.3f} ms a run, ● {profile.profiled_ms:.3f} ms under the profiler: "
        f"● {profile.nodes_ms:.3f} ms in {counted(len(nodes), 'node')}, {rest:.3f} ms between them "
        "or taken by other programs "
        f"({profile.statistic}s of {counted(profile.runs, 'run')}, one after the other)",
    ]
    if parts:
        whole, missing = sum(p.model_ms for p in parts), [p for p in parts if p.profiled_ms is None]
        lines.append(
            f"○ {whole:.3f} ms by the model: of each of its parts at its first node; "
            f"{sum(p.model_ms for p in missing):.3f} ms of it in {counted(len(missing), 'part')} "
            "without a node"
        )
    lines += [f"no time by the model: {no_model}"] if no_model else []
    if out is not None:
        lines.append(f"{out}: open it at https://ui.perfetto.dev")
    if run is not None:
        lines.append(f"The run keeps it; show it:  phonenas report {shlex.quote(str(run))}")
    return "\n".join(lines)
