"""Commands that show what a search space, a network or a run is, and write a network as a file."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.graph import NetworkGraph
from phonenas.space.precision import FLOAT32, PRECISIONS, checked_precision

from .options import (
    NETWORK,
    InputFile,
    Output,
    OwnResolution,
    Resolution,
    Seed,
    Shapes,
    Width,
    command,
)
from .output import origin_note, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from phonenas.search.run_folder import Loaded
    from phonenas.space import Operator, SearchSpace
    from phonenas.space.zoo import Published

__all__ = ["export_network", "few_of", "refuse_precision", "show", "space"]

_FORMATS = {".onnx": "onnx", ".tflite": "tflite", ".safetensors": "torch"}
_COUNTED = (
    "The whole counts weights, biases and BatchNorm; as in published counts, the products of a "
    "gate are no MACs."
)
_MOST_ROWS = 20  # of a run, in a table
_LONGEST = 60  # characters of a block string, in a table


@command
def space(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            metavar="SPACE", help="{spaces}; a .toml file; or table:FILE, the networks of a table."
        ),
    ],
    genes: Annotated[
        bool, typer.Option("--genes", help="Print each gene with its options.")
    ] = False,
    resolution: Resolution = None,
) -> None:
    """Show the size of a search space and its choices."""
    from phonenas import space as spaces

    searched = spaces.get(name, resolution)
    per_block: dict[str, int] = {}
    for decision, options in searched.decisions.items():
        block = decision.split("_", 1)[0]
        per_block[block] = per_block.get(block, 1) * len(options)
    result = {
        "name": name,
        "blocks": len(per_block),
        "choices_per_block": list(per_block.values()),
        "size": searched.size,
        "operators": len(searched.operators()),
        "resolution_px": searched.resolution_px,
        "genes": {gene: list(options) for gene, options in searched.decisions.items()},
    }
    rows = [[gene, ", ".join(map(str, o))] for gene, o in searched.decisions.items()]
    output.print(
        result,
        lambda: (
            f"{name} at {searched.resolution_px} px: {searched.size:.3g} genomes in "
            f"{len(per_block)} blocks ({', '.join(map(str, per_block.values()))} choices), "
            f"{len(searched.operators()):,} distinct operators"
            + (f"\n\n{table(['gene', 'options'], rows)}" if genes else "")
        ),
    )


@command
def show(
    output: Output,
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|RUN",
            help=f"{NETWORK} An .onnx, .tflite or .pt2 file, module:Name, ssdlite:NAME, or a "
            "run's folder.",
        ),
    ],
    width: Width = 1.0,
    resolution: OwnResolution = None,
    shape: Shapes = None,
    input_: InputFile = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Of a run: every evaluated network, not the front alone.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Of a run: write the rows to this file, too.")
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(help="Of a run: write every evaluated network, with its name, to this file."),
    ] = None,
) -> None:
    """Show a network: its operators, parameters and MACs; or the front of a run."""
    from .networks import cut_file, find, given_inputs, is_file, is_run, other

    network = network.strip()
    if is_run(network):
        from phonenas.search.run_folder import load

        words = "does not apply to a run: its networks have their own"
        output.refuse("width resolution shape input_", words)
        _show_run(output, load(network), all_, csv, parquet)
        return
    output.refuse("all_ csv parquet", "applies to a run, and this is a network")
    given = given_inputs(output, [network], shape, resolution, input_)
    result: dict[str, Any]
    if is_file(network):
        graph = cut_file(network, given)
        precision = graph.precision
        layers: list[Any] = list(graph.kernels)
        result = {
            "name": network,
            "params": sum(k.params for k in layers),
            "macs": graph.macs,
            "precision": precision,
            "operators": _counts(layers),
            "notes": list(graph.notes),
        }
        head = "" if precision == "float32" else f"precision {precision}\n\n"
        header, foot, whole = "kernel", "\n".join(["", *graph.notes]), "whole"
    else:
        if "/" in network and not {" ", ":"} & set(network) and not Path(network).exists():
            raise UnknownName(f"there is no run in {network}, and no network of this name")
        from .timing import published_of

        shown = other(network, width, resolution) or find(network, width, resolution)
        layers = list(shown.operators())
        result = {
            "name": network,
            "params": shown.params,
            "macs": shown.macs,
            "resolution_px": shown.resolution_px,
            "operators": _counts(layers),
            "block_args": str(shown),
        }
        header, head, foot = "operator", f"{shown}\n\n", ""
        figures = published_of(shown)
        if figures is not None:
            result["published"] = asdict(figures)
            foot = "\n\n" + _figures(figures)
        if isinstance(shown, NetworkGraph):
            header = "kernel"
            foot += "\n\n" + _COUNTED
        whole = f"{shown.resolution_px} px, whole"

    def text() -> str:
        rows = [[str(x), f"{x.macs:,}", f"{x.params:,}"] for x in layers]
        total = [whole, f"{result['macs']:,}", f"{result['params']:,}"]
        return head + table([header, "MACs", "parameters"], [*rows, total]) + foot

    output.print(result, text)


def _figures(figures: Published) -> str:
    top5 = "" if figures.top5 is None else f", top-5 {figures.top5:g} %"
    ms = "" if figures.pixel1_ms is None else f", {figures.pixel1_ms:g} ms on a Pixel 1"
    return f"published: top-1 {figures.top1:g} %{top5}{ms} ({figures.source})"


def _counts(layers: list[Any]) -> list[dict[str, Any]]:
    return [{"key": x.key, "macs": x.macs, "params": x.params} for x in layers]


def _show_run(
    output: Output, run: Loaded, every: bool, csv: Path | None, parquet: Path | None
) -> None:
    from phonenas.data.files import refuse_other, write_atomic
    from phonenas.report import gain_sentence, measured_in, read_references
    from phonenas.search.device_view import of_device
    from phonenas.search.run_document import estimate_of

    from .timing import known_lines

    for file in (csv, parquet):
        if file is not None:
            refuse_other(file)
    frame = run.to_frame() if every else run.front.to_frame()
    target = run.spec.target
    if target is not None:
        missed = frame["latency_ms"] > target.ms
        for name, ms in run.front.targets.items():
            missed |= frame[name] > ms
        frame = frame.assign(missed=missed & (not target.soft))
        frame = frame.sort_values(["missed", "reward"], ascending=[True, False], kind="stable")
        frame = frame.drop(columns="missed")
    if csv is not None:
        from phonenas.data.export import to_csv

        write_atomic(csv, to_csv(frame))
    if parquet is not None:
        run.write_networks(parquet)
    known = read_references(run)
    gained = gain_sentence(run.front, known, measured_in(run))
    told = estimate_of(run.settings, run.front)
    plain = frame.astype(object).where(frame.notna(), None)
    rows: list[dict[str, Any]] = [
        {str(k): v for k, v in r.items()} for r in plain.to_dict("records")
    ]
    result = {
        "run": str(run.path),
        "target_ms": run.front.target_ms,
        **({"targets_ms": run.front.targets} if run.front.targets else {}),
        "hypervolume": run.front.hypervolume,
        "front": len(run.front),
        "extrapolated": sum(c.outside for c in run.front),
        "left_out": run.front.left_out,
        "quantity": told.quantity,
        "schedule": told.schedule,
        "scale": told.scale,
        "networks": rows,
        "references": [asdict(r) for r in known],
        "gain": gained,
        "origin": " and ".join(dict.fromkeys(of_device(run, d).front.origin for d in run.devices)),
        "csv": None if csv is None else str(csv),
        **({} if parquet is None else {"parquet": str(parquet)}),
    }

    def text() -> str:
        what = "evaluated networks" if every else "networks on the front"
        order = "fastest first" if not every else "in the order of the search"
        if target is not None:
            order = f"target {target.ms:.3f} ms, best reward first"
            if several := run.front.targets:
                words = [f"{ms:.3f} ms on {name.partition(':')[2]}" for name, ms in several.items()]
                order = f"targets {', '.join(words)}, best reward first"
        lines = [
            f"{run.path}: {len(frame):,} {what}, {order}",
            "",
            _run_table(rows[:_MOST_ROWS], told.quantity, run.front.targets),
        ]
        if len(frame) > _MOST_ROWS:
            lines.append(f"({_MOST_ROWS} of {len(frame):,}; --csv FILE writes all)")
        lines += [*run.front.extrapolated(), f"* {told.scale}"]
        own = run.model.get("conditions")
        conditions = None if not own else run.conditions
        lines += known_lines(gained, known, "●" if conditions is None else conditions.mark)
        lines += [f"written to {file}" for file in (csv, parquet) if file is not None]
        notes = [] if conditions is None else [of_device(run, d).conditions for d in run.devices]
        return "\n".join(lines) + "".join(dict.fromkeys(map(origin_note, notes)))

    output.print(result, text)


def _run_table(networks: list[dict[str, Any]], quantity: str, several: Iterable[str]) -> str:
    devices = [name.removeprefix("latency:") for name in several]
    rows = [
        [
            "" if n["id"] is None else str(n["id"]),
            *_latencies(n, devices),
            "–" if n["top1"] is None else f"○ {n['top1']:.1%} ±{n['top1_error']:.1%}",
            "extrapolated" if n["outside"] else "",
            f"{n['macs'] / 1e6:.0f} M",
            f"{n['params'] / 1e6:.2f} M",
            "" if n["reward"] is None else f"{n['reward']:.4f}",
            n["network"] if len(n["network"]) <= _LONGEST else n["network"][: _LONGEST - 1] + "…",
        ]
        for n in networks
    ]
    header = [
        "id",
        *([f"{d}, 90 %" for d in devices] or ["predicted", "90 % interval"]),
        f"{quantity}*",
        "",
        "MACs",
        "parameters",
        "reward",
    ]
    return table([*header, "network"], rows)


def _latencies(n: dict[str, Any], devices: list[str]) -> list[str]:
    """The predicted latency and its interval, where it is known; a cell for each of several."""
    if not devices:
        ends = "" if n["low_ms"] is None else f"{n['low_ms']:.2f} to {n['high_ms']:.2f}"
        return [f"○ {n['latency_ms']:.2f} ms", ends]
    return [
        f"○ {n[f'latency:{d}']:.2f} ms"
        + (f", {n[f'low:{d}']:.2f} to {n[f'high:{d}']:.2f}" if n[f"low:{d}"] is not None else "")
        for d in devices
    ]


@command
def export_network(
    output: Output,
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=f"{NETWORK} Or ssdlite:NAME.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    format: Annotated[
        str | None, typer.Option(help="onnx, tflite or torch; default: by the name of the file.")
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    precision: Annotated[
        str, typer.Option(help=f"What it computes in: {', '.join(PRECISIONS)}.")
    ] = FLOAT32,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that int8 is calibrated on, as --data; default: random ones, which serve "
            "for times alone.",
        ),
    ] = None,
    seed: Seed = 0,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights that torch saved (.pth): assigned by their order, whatever their names.",
        ),
    ] = None,
    eps: Annotated[
        float, typer.Option(help="The eps of BatchNorm with which --weights were trained.")
    ] = 1e-5,
) -> None:
    """Write a network as an ONNX, TFLite or torch file, with random weights or those given."""
    from phonenas.data.files import refuse_other, write_atomic
    from phonenas.space import SSDLite
    from phonenas.space.lowering.write import write_network

    from .networks import find, other

    form = format or _FORMATS.get(out.suffix)
    if form is None:
        raise InvalidArgument(f"{out}: --format is needed: onnx, tflite or torch")
    refuse_other(out)
    found = other(network, width, resolution) or find(network, width, resolution)
    checked_precision(precision)
    if precision != "int8":
        output.refuse("calibrate", "is of --precision int8: give that, too")
    elif weights is not None and calibrate is None:
        raise InvalidArgument(
            "trained weights in int8 need images to calibrate on: give --calibrate DIR"
        )

    arrays = None
    if weights is None:
        output.refuse("eps", "is of --weights, and none are given")
    elif isinstance(found, SSDLite):
        raise InvalidArgument("--weights are of a classifier, and this network is a detector")
    else:
        from phonenas.space.lowering.state_dict import folded_eps, load_state_dict

        output.refuse("seed", "does not apply to --weights")
        arrays = folded_eps(load_state_dict(weights, found, eps=eps), eps)

    images = None
    if calibrate is not None and not isinstance(found, SSDLite):
        from phonenas.data.images import read_images
        from phonenas.search.training.export.quantised import Quantisation

        images = [*Quantisation(read_images(calibrate)).inputs(found.resolution_px)]

    def write(beside: Path) -> None:
        write_network(
            found, form, beside, seed=seed, weights=arrays, precision=precision, images=images
        )

    write_atomic(out, write)
    size = out.stat().st_size
    result = {
        "network": str(found),
        "format": form,
        "file": str(out),
        "bytes": size,
        "seed": seed,
        "trained": arrays is not None,
        "precision": precision,
        "calibrated_on": 0 if images is None else len(images),
    }
    which = f"random weights (seed {seed})" if weights is None else f"the weights of {weights}"
    of = "" if precision == FLOAT32 else f" in {precision}"
    if precision == "int8":
        of += ", its ranges over " + (
            "random images" if images is None else f"{len(images)} images"
        )
    output.print(result, lambda: f"{out}: {size / 1e6:.2f} MB, with {which}{of}")


def few_of(
    space: SearchSpace | None, given: dict[str, Any], networks: int | None = None
) -> Sequence[Operator] | None:
    """The operators of a space that are most informative, as many as the user wants; None for all.

    Raises:
        InvalidArgument: Options that do not go together, or a count out of range.
    """
    from phonenas.latency_model.units.selection import choose_operators

    named = {name for name, value in given.items() if value is not None}
    if named and space is None:
        raise InvalidArgument(f"{min(named)} selects from a space's operators: give --space, too")
    if networks and "--like" in named and "--measurements" not in named:
        raise InvalidArgument(
            "--networks does not go with --like alone: give --measurements, too, of which so many "
            "are networks"
        )
    if "--operators" in named and (also := named & {"--like", "--measurements"}):
        raise InvalidArgument(
            f"--operators does not go with {min(also)}: give --measurements alone, and --networks "
            "for how many of them are whole networks"
        )
    return (
        choose_operators(space, given["--operators"]) if space and "--operators" in named else None
    )


def refuse_precision(space: str, conditions: Sequence[str]) -> None:
    """Refuse a choice of the precision among the conditions on a space that has no such gene.

    Raises:
        InvalidArgument: One of these is on the precision.
    """
    from phonenas import space as spaces
    from phonenas.space.spaces import parted

    name, own = parted(space)
    asked = [c for c in (*own, *conditions) if re.match("precision!?=", c)]
    if asked and "precision" not in spaces.get(name).decisions:
        raise InvalidArgument(
            f"{asked[0]} is no condition on the space {name}. To search over the precisions of "
            "which the device has models, leave it out and give --precision any"
        )
