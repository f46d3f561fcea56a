"""The command line: reads the words, calls one function, prints its result.

stdout carries the result (a table, or one JSON document with --json), stderr the bars and the
log. Exit 0: done; 1: it could not be done; 2: it was asked amiss.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .space.errors import InvalidArgument, NotEnoughData, PhonenasError, StoreError

if TYPE_CHECKING:
    from .data import MeasurementStore
    from .latency_model import LatencyModel, Score
    from .space import Architecture

__all__ = ["app", "main"]

app = typer.Typer(
    name="phonenas",
    help="Find image networks that are accurate and fast on your device, and prove it there.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Db = Annotated[
    str, typer.Option("--db", envvar="PHONENAS_DB", help="Measurement store: a path or a URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what is done to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No bars, no notes.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Device, as `phonenas devices` lists it.")
]
Space = Annotated[str, typer.Option("--space", help="mnasnet, mnasnet-flat or accel-nasbench.")]
Resolution = Annotated[int, typer.Option(help="Side of the input image, in pixels.")]
OwnResolution = Annotated[
    int | None, typer.Option("--resolution", help="Input side in pixels, instead of its own.")
]
Width = Annotated[float, typer.Option(help="Width multiplier.")]
Threads = Annotated[int, typer.Option(help="Threads that compute, pinned to as many cores.")]
ModelFile = Annotated[
    Path | None, typer.Option("--model", help="Latency model file; default: the store's.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of all chance.")]
DEFAULT_DB = "phonenas.db"


def main() -> None:
    """Run the command line; errors leave as one line on stderr and an exit code."""
    try:
        app(prog_name="phonenas")
    except PhonenasError as error:
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except (_Stopped, KeyboardInterrupt):
        _fail("Stopped. What was finished is kept; the same command goes on from there.", 130)
    except BrokenPipeError:
        # Whoever read our output has enough; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(f"StoreError:{where} {error.strerror or error}. Nothing half-written is left.", 1)


class _Stopped(Exception):
    """Ctrl-C inside a command."""


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _logging(verbose: bool, quiet: bool) -> None:
    logger = logging.getLogger("phonenas")
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


def _print(result: Any, as_json: bool, text: Callable[[], str]) -> None:
    if as_json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        print(text())


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    # Numbers stand to the right, words to the left.
    right = [all(r[i][:1] in "-+0123456789○●" for r in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            c.rjust(w) if is_right else c.ljust(w)
            for c, w, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def _score_table(scores: dict[str, Score]) -> str:
    names = {"model": "model", "lookup_table": "raw table sum", "macs": "MACs baseline"}
    header = ["", "n", "MAPE", "bias", "acc5", "acc10", "RMSE", "Spearman", "Kendall", "90% covers"]
    rows = []
    for key, s in scores.items():
        coverage = "" if s.coverage90 != s.coverage90 else f"{s.coverage90:.0%}"
        rows.append(
            [
                names.get(key, key),
                str(s.n),
                f"{s.mape:.2%}",
                f"{s.bias:+.2%}",
                f"{s.acc5:.0%}",
                f"{s.acc10:.0%}",
                f"{s.rmse_ms:.3f} ms",
                f"{s.spearman:.4f}",
                f"{s.kendall_tau:.4f}",
                coverage,
            ]
        )
    return _table(header, rows)


def _store(db: str, *, create: bool = False) -> MeasurementStore:
    from .data import MeasurementStore

    return MeasurementStore(db, create=create)


def model_path(db: str, device: str) -> Path:
    """Where a store's latency model of a device lies: beside a file, or in this folder."""
    if "://" in db:
        return Path(f"phonenas.{device}.model.json")
    path = Path(db)
    return path.with_name(f"{path.stem}.{device}.model.json")


def _model(db: str, device: str, model: Path | None, quiet: bool) -> LatencyModel:
    from .data import MeasurementStore
    from .devices import connect
    from .latency_model import load

    path = model or model_path(db, device)
    if not path.exists():
        connect(device)  # an unknown device is the likelier mistake
        raise NotEnoughData(
            f"there is no latency model of {device} at {path}. Fit one:  "
            f"phonenas fit --device {device} --db {db}"
        )
    found = load(path)
    if found.device != device:
        raise InvalidArgument(f"{path} is a model of {found.device}, not of {device}")
    if not quiet and ("://" in db or Path(db).exists()):
        more = 0
        # A store that can only be read, or not at all, is no reason not to predict.
        with contextlib.suppress(StoreError), MeasurementStore(db, create=False) as store:
            more = store.count(found.conditions) - found.measurements
        if more > 0:
            print(
                f"{more} measurements are newer than the model; phonenas fit takes them in.",
                file=sys.stderr,
            )
    return found


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """A command of the app, with logging set up from its own --verbose and --quiet."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        _logging(kwargs.get("verbose", False), kwargs.get("quiet", False))
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt as stop:
            # Typer would end in silence.
            raise _Stopped from stop

    return app.command(name=function.__name__.rstrip("_"))(run)


@_command
def devices(
    db: Db = DEFAULT_DB, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """List what can be measured, and what it is."""
    from dataclasses import asdict

    from .devices import listing

    found = [asdict(s) for s in listing()]
    header = ["name", "kind", "state", "model", "cores", "runtime", "detail"]
    _print(found, as_json, lambda: _table(header, [[str(r[h]) for h in header] for r in found]))


@_command
def space(
    name: Annotated[str, typer.Argument(help="mnasnet, mnasnet-flat or accel-nasbench.")],
    resolution: Resolution = 224,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what a search space holds."""
    from . import space as spaces

    found = spaces.get(name, resolution)
    per_block: dict[str, int] = {}
    for decision, options in found.decisions.items():
        block = decision.split("_", 1)[0]
        per_block[block] = per_block.get(block, 1) * len(options)
    result = {
        "name": name,
        "blocks": len(per_block),
        "choices_per_block": list(per_block.values()),
        "size": found.size,
        "operators": len(found.operators()),
        "resolution_px": resolution,
    }
    _print(
        result,
        as_json,
        lambda: (
            f"{name} at {resolution} px: {found.size:.3g} genomes in {len(per_block)} blocks "
            f"({', '.join(map(str, per_block.values()))} choices), "
            f"{len(found.operators()):,} distinct operators"
        ),
    )


@_command
def show(
    network: Annotated[
        str, typer.Argument(help="Zoo name, block string, runs/x:3, or .json file.")
    ],
    width: Width = 1.0,
    resolution: OwnResolution = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show a network: its operators, parameters and MACs."""
    from .search.networks import find

    found = find(network, width, resolution)
    operators = [{"key": o.key, "macs": o.macs, "params": o.params} for o in found.operators()]
    result = {
        "name": network,
        "params": found.params,
        "macs": found.macs,
        "resolution_px": found.resolution_px,
        "operators": operators,
        "block_args": str(found),
    }

    def text() -> str:
        rows = [[str(o), f"{o.macs:,}", f"{o.params:,}"] for o in found.operators()]
        total = [f"{found.resolution_px} px, whole", f"{found.macs:,}", f"{found.params:,}"]
        return f"{found}\n\n" + _table(["operator", "MACs", "parameters"], [*rows, total])

    _print(result, as_json, text)


@_command
def profile(
    device: DeviceName = "local",
    space: Annotated[
        str | None, typer.Option("--space", help="Whose operators; mnasnet without --network.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", help="Also this network, whole; repeatable.")
    ] = None,
    networks: Annotated[int, typer.Option(help="Random networks of the space, whole.")] = 20,
    resolution: OwnResolution = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: a first look.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    threads: Threads = 1,
    seed: Seed = 0,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure a device: every operator of a space, and some whole networks."""
    from . import devices as d
    from . import space as spaces
    from .progress import Bars
    from .search.networks import find

    named = [find(n, 1.0, resolution) for n in network or []]
    phone = d.connect(device, threads=threads)
    chosen = spaces.get(space or "mnasnet", resolution or 224) if space or not named else None
    with phone, _store(db, create=True) as store, Bars(quiet) as bars:
        outcome = d.profile(
            chosen, on=phone, into=store, networks=networks if chosen else 0, named=named,
            quick=quick, again=again, seed=seed, on_event=bars.profiling,
        )  # fmt: skip
    result = {
        "measured": outcome.measured,
        "reused": outcome.reused,
        "rejected": outcome.rejected,
        "unstable": dict(outcome.unstable),
        "seconds": round(outcome.seconds, 3),
        "conditions": outcome.conditions.to_dict(),
        "verdict": {"stable": outcome.verdict.stable, "text": outcome.verdict.text},
        "store": db,
    }

    def text() -> str:
        lines = [
            f"{outcome.measured} subject{'s' * (outcome.measured != 1)} measured, "
            f"{outcome.reused} found in {db}, "
            f"{outcome.rejected} readings rejected and taken again, {outcome.seconds:.0f} s",
            f"conditions: {outcome.conditions}",
            f"verdict: {outcome.verdict.text}",
        ]
        lines += [f"given up: {name}: {why}" for name, why in list(outcome.unstable.items())[:10]]
        return "\n".join(lines)

    _print(result, as_json, text)


@_command
def fit(
    device: DeviceName = "local",
    conditions: Annotated[
        str | None, typer.Option(help="Digest of the conditions, if there are several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is written.")] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fit the latency model, and score it on networks that it was not fitted on."""
    from .devices import connect
    from .latency_model.fitting import choose_conditions
    from .latency_model.fitting import fit as fit_model

    connect(device)
    with _store(db) as store:
        chosen, left_out = choose_conditions(store, device, conditions)
        model = fit_model(store, device, conditions=chosen.digest)
    for other in left_out if not quiet else []:
        told = "; ".join(chosen.differences(other))
        print(
            f"left out, measured under other conditions ({other.digest}): {told}", file=sys.stderr
        )
    path = model.save(out or model_path(db, device))
    result = {
        "device": device,
        "operators": len(model.table),
        "networks": len(model.examined),
        "score": model.scores["model"].to_dict(),
        "lookup_table": model.scores["lookup_table"].to_dict(),
        "macs": model.scores["macs"].to_dict(),
        "conditions": model.conditions.to_dict(),
        "model": str(path),
    }

    def text() -> str:
        return (
            f"{device}: {len(model.table):,} operators, {len(model.examined)} whole networks, each "
            "predicted by a model that had not seen it\n\n"
            + _score_table(dict(model.scores))
            + f"\n\nwritten to {path}"
        )

    _print(result, as_json, text)


@_command
def predict(
    network: Annotated[list[str], typer.Argument(help="Zoo name, block string, runs/x:3, .json.")],
    device: DeviceName = "local",
    explain: Annotated[bool, typer.Option("--explain", help="By operator.")] = False,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Predict the latency of networks that were never run."""
    from .search.networks import find

    told = _model(db, device, model, quiet)
    found = [find(n, width, resolution) for n in network]
    predicted = told.predict(found)
    result: list[dict[str, Any]] = []
    for i, (name, architecture) in enumerate(zip(network, found, strict=True)):
        result.append(
            {
                "network": name,
                "latency_ms": float(predicted.ms[i]),
                "low_ms": float(predicted.low_ms[i]),
                "high_ms": float(predicted.high_ms[i]),
                "interval": 0.9,
                "covered": bool(predicted.covered[i]),
            }
        )
        if explain:
            result[-1]["operators"] = _explained(told, architecture)

    def text() -> str:
        rows = [
            [
                r["network"], f"○ {r['latency_ms']:.3f} ms",
                f"{r['low_ms']:.3f} to {r['high_ms']:.3f} ms",
                "every operator measured" if r["covered"] else "some operators estimated",
            ]
            for r in result
        ]  # fmt: skip
        shown = _table(["network", "predicted", "90 % interval", ""], rows)
        for r in result if explain else []:
            lines = [
                [o["key"], f"{o['ms']:.4f}", f"{o['share']:.1%}", "●" if o["measured"] else "○"]
                for o in r["operators"]
            ]
            shown += f"\n\n{r['network']}\n" + _table(["operator", "ms", "share", ""], lines)
        return shown

    _print(result, as_json, text)


def _explained(model: LatencyModel, architecture: Architecture) -> list[dict[str, Any]]:
    shares = model.explain(architecture)
    whole = sum(e.ms for e in shares)
    return [
        {
            "key": "(constant)" if e.operator is None else e.operator.key,
            "ms": e.ms,
            "alone_ms": e.alone_ms,
            "share": e.ms / whole,
            "measured": e.measured,
        }
        for e in shares
    ]


@_command
def search(
    out: Annotated[Path, typer.Option("--out", help="Run folder; a stopped run in it goes on.")],
    device: DeviceName = "local",
    space: Space = "mnasnet",
    strategy: Annotated[str, typer.Option(help="nsga2 or random.")] = "nsga2",
    target: Annotated[
        str | None, typer.Option(help="Milliseconds, or a network whose measured latency it is.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="Distinct networks to judge.")] = 8000,
    resolution: Resolution = 224,
    seed: Seed = 0,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Search offline for networks that are accurate and fast."""
    from . import search as s
    from . import space as spaces
    from .progress import Bars

    chosen = spaces.get(space, resolution)
    how = s.get(strategy, seed)
    target_ms = None
    number = _number(target)
    if number is not None:
        target_ms = s.check_target(number)
    told = _model(db, device, model, quiet)
    if target is not None and number is None:
        target_ms = _measured_ms(target, told, db, resolution)
    with Bars(quiet) as bars:
        found = s.search(
            chosen, latency=told, accuracy=s.accuracy.Surrogate(), strategy=how,
            target_ms=target_ms, target=target or "", evaluations=evaluations, into=out,
            on_event=bars.searching,
        )  # fmt: skip
    front = found.front
    keys = (
        "id", "block_args", "top1", "top1_error", "outside", "latency_ms", "low_ms", "high_ms",
        "covered", "macs", "params", "reward",
    )  # fmt: skip
    result = {
        "strategy": found.strategy,
        "evaluations": found.evaluations,
        "seconds": round(found.seconds, 3),
        "hypervolume": front.hypervolume,
        "target_ms": front.target_ms,
        "resumed_from": found.resumed_from,
        "front": [{k: c.to_dict()[k] for k in keys} for c in front],
    }

    def text() -> str:
        shown = front.candidates
        if len(shown) > 15:
            shown = tuple(shown[round(i * (len(shown) - 1) / 14)] for i in range(15))
        rows = [
            [
                str(c.id), f"○ {c.latency_ms:.2f} ms", f"{c.low_ms:.2f} to {c.high_ms:.2f}",
                f"{c.top1:.1%} ±{c.top1_error:.1%}" + (" outside" if c.outside else ""),
                f"{c.macs / 1e6:.0f} M", f"{c.params / 1e6:.2f} M",
                "" if c.reward is None else f"{c.reward:.4f}",
            ]
            for c in shown
        ]  # fmt: skip
        header = ["id", "predicted", "90 % interval", "top-1*", "MACs", "parameters", "reward"]
        aim = f", target {front.target_ms:.3f} ms" if front.target_ms else ""
        return (
            f"{found.evaluations:,} networks judged in {found.seconds:.1f} s by {found.strategy}"
            f"{aim}: {len(front)} on the front, hypervolume {front.hypervolume:.4f}"
            + (f", resumed from {found.resumed_from:,}" if found.resumed_from else "")
            + f"\n\n{_table(header, rows)}\n\n* after a 16-epoch schedule: it ranks networks, it "
            f"does not promise ImageNet accuracy\nwritten to {out}; measure the best:  "
            f"phonenas validate {out} --device {device} --db {db}"
        )

    _print(result, as_json, text)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _measured_ms(text: str, model: LatencyModel, db: str, resolution: int) -> float:
    """Measured latency of a named network, under the model's own conditions."""
    from .search.networks import find

    network = find(text, 1.0, resolution)
    with _store(db) as store:
        for m in store.measurements(model.conditions, "network"):
            if m.subject == str(network):
                return m.latency_ms
    raise NotEnoughData(
        f"--target {text}: this network is not measured on {model.device}. Measure it:  "
        f"phonenas profile --device {model.device} --network '{network}' --db {db}"
    )


@_command
def validate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a search.")],
    device: DeviceName = "local",
    top: Annotated[int, typer.Option(help="How many of the best.")] = 5,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    threads: Threads = 1,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure the best networks of a run whole, beside what was promised."""
    from . import devices as d
    from . import search as s
    from .data import Conditions
    from .data.files import write_atomic
    from .progress import Bars
    from .search.validation import document

    loaded = s.load(run)
    if loaded.settings["device"] != device:
        raise InvalidArgument(
            f"{run} was searched for {loaded.settings['device']}, not for {device}"
        )
    told = _model(db, device, model, quiet=True)
    promised_under = Conditions.from_dict(loaded.model["conditions"])
    with d.connect(device, threads=threads) as phone, _store(db) as store, Bars(quiet) as bars:
        found = s.validate(
            loaded.front,
            on=phone,
            into=store,
            top=top,
            again=again,
            expected=promised_under,
            on_event=bars.profiling,
        )
        text_of = document(found, loaded, told, phone.conditions)
    write_atomic(run / "validation.json", json.dumps(text_of, indent=1) + "\n")
    loaded.with_measured({v.candidate.id: v.measured_ms for v in found.networks})
    result = {
        "networks": [v.to_dict() for v in found.networks],
        "score": found.score.to_dict(),
        "target_ms": found.target_ms,
        "reused": found.reused,
        "verdict": text_of["verdict"],
    }

    def text() -> str:
        inside = sum(v.inside for v in found.networks)
        meets = sum(bool(v.meets_target) for v in found.networks)
        rows = [
            [
                str(v.candidate.id), f"○ {v.predicted_ms:.2f} ms", f"{v.low_ms:.2f} to {v.high_ms:.2f}",
                f"● {v.measured_ms:.2f} ms", f"±{v.spread:.1%}", f"{v.error:+.1%}",
                "inside" if v.inside else "OUTSIDE",
                {True: "meets it", False: "misses it", None: ""}[v.meets_target],
            ]
            for v in found.networks
        ]  # fmt: skip
        header = [
            "id",
            "promised",
            "90 % interval",
            "measured",
            "rounds",
            "error",
            "interval",
            "target",
        ]
        aim = f"; {meets} meet the target of {found.target_ms:.3f} ms" if found.target_ms else ""
        return (
            f"{_table(header, rows)}\n\n{inside} of {len(found.networks)} inside their interval{aim}; "
            f"mean error {found.score.mape:.1%}"
            + (f"; {found.reused} were in the store already" if found.reused else "")
            + f"\nverdict: {found.verdict.text}"
        )

    _print(result, as_json, text)


@_command
def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a search.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default DIR/report.html.")
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as one self-contained page that opens offline."""
    from .report import write_report

    path = write_report(run, out)
    _print(str(path), as_json, lambda: str(path))


@_command
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet file.")],
    device: Annotated[str | None, typer.Option("--device", help="Only this device.")] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the store's measurements as a table, raw samples and conditions included."""
    from .data import export as write

    with _store(db) as store:
        rows = write(store, out, device)
    _print({"file": str(out), "measurements": rows}, as_json, lambda: f"{rows} measurements: {out}")
