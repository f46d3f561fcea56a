"""The commands that speak with devices: list them, and measure them."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import commands_kernels
from .console import (
    DEFAULT_DB,
    AsJson,
    Db,
    OwnResolution,
    Quiet,
    Ray,
    Seed,
    Threads,
    Verbose,
    open_store,
    origin_note,
    print_result,
    shown_db,
    table,
)  # fmt: skip
from .space.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .devices import Device, Outcome
    from .space import Architecture, Operator, SearchSpace
    from .space.onnx_file import OnnxFile
    from .space.ssdlite import SSDLite

__all__ = ["celsius", "devices", "profile", "reached"]


def devices(
    db: Db = DEFAULT_DB, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """List what can be measured, what it is, and what to do where it cannot be reached."""
    from dataclasses import asdict

    from .devices import listing

    found = [asdict(s) for s in listing()]
    header = ["name", "kind", "state", "model", "cores", "runtime", "detail"]
    print_result(
        found, as_json, lambda: table(header, [[str(r[h]) for h in header] for r in found])
    )


def profile(
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="As `phonenas devices` lists it; several side by side."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Whose operators; mnasnet without --network.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network", help="Also this network, detector or .onnx file, whole; repeatable."
        ),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", help="Also this operator, by its key; repeatable."),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option("--kernel", help="Also this kernel, by its key; repeatable."),
    ] = None,
    kernels: Annotated[
        int | None,
        typer.Option("--kernels", help="So many kernels, and random networks, for any ONNX file."),
    ] = None,
    kernels_of: Annotated[
        list[str] | None,
        typer.Option(
            "--kernels-of", help="Every kernel of this .onnx file or detector; repeatable."
        ),
    ] = None,
    operators: Annotated[
        int | None,
        typer.Option("--operators", help="Of the space's operators so many, those that tell most."),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="A device that it resembles, measured in full.")
    ] = None,
    measurements: Annotated[
        int | None,
        typer.Option("--measurements", help="With --like: operators and networks in all (30)."),
    ] = None,
    networks: Annotated[int, typer.Option(help="Random networks of the space, whole.")] = 20,
    resolution: OwnResolution = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: a first look.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    mode: Annotated[
        str, typer.Option(help="steady, or sustained: whole networks after minutes of load.")
    ] = "steady",
    sustain: Annotated[float, typer.Option(help="Seconds of load before sustained speed.")] = 180.0,
    wait_below: Annotated[
        str | None, typer.Option(help="Wait for the device to be cooler, as 45C.")
    ] = None,
    threads: Threads = None,
    ray: Ray = None,
    seed: Seed = 0,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure devices: every operator of a space, and some whole networks."""
    from . import devices as d
    from . import space as spaces
    from .devices.shelf import Shelf
    from .latency_model.relatives import choose_for
    from .progress import Bars
    from .search.networks import detector, find

    if mode not in ("steady", "sustained"):
        raise InvalidArgument(f"--mode: steady or sustained, got {mode!r}")
    below_c = celsius(wait_below)
    told = ((n, detector(n, 1.0, resolution)) for n in network or [])
    detectors = {n: one for n, one in told if one is not None}
    files: list[OnnxFile | SSDLite] = [
        commands_kernels.network_file(n) for n in network or [] if n.endswith(".onnx")
    ]
    files += detectors.values()
    layered = [n for n in network or [] if not n.endswith(".onnx") and n not in detectors]
    named = [find(n, 1.0, resolution) for n in layered]
    lone_kernels = [spaces.Kernel.parse(key) for key in kernel or []]
    lone_kernels += commands_kernels.kernels_of(kernels_of or [], resolution)
    asked = {*map(str, named), *(f.key for f in files)}
    phone_names = list(dict.fromkeys(device or ["local"]))
    keys = [spaces.Operator.parse(key) for key in operator or []]
    lone = space is None and (named or keys or files or lone_kernels or kernels is not None)
    chosen = None if lone else spaces.get(space or "mnasnet", resolution)
    given = {"--like": like, "--operators": operators, "--measurements": measurements}
    few = _few_of(chosen, given)
    if kernels is not None and mode != "steady":
        raise InvalidArgument("--kernels: kernels are measured steady, without --mode")

    with reached(phone_names, threads, ray) as phones, open_store(db, create=True) as store:

        def work(phone: Device, tell: Any) -> Outcome:
            if kernels is not None:
                found = commands_kernels.profile_kernels(
                    phone, store, kernels, networks, seed=seed, quick=quick, again=again,
                    on_event=tell, wait_below_c=below_c,
                )  # fmt: skip
                if lone and not (named or keys or files or lone_kernels):
                    return found
            only: Sequence[Operator] | None = few
            wholes: Sequence[Architecture] = ()
            if like is not None and chosen is not None:
                only, wholes = choose_for(store, phone.conditions, like, chosen, measurements or 30)
            return d.profile(
                chosen, on=phone, into=store, networks=networks if chosen and like is None else 0,
                named=named, only=only, wholes=wholes, operators=keys, kernels=lone_kernels, files=files, quick=quick, again=again, seed=seed, mode=mode, sustain_s=sustain,  # type: ignore[arg-type]
                wait_below_c=below_c, on_event=tell,
            )  # fmt: skip

        if len(phones) == 1:
            with phones[0] as phone, Bars(quiet) as bars:
                outcome = work(phone, bars.profiling)
            print_result(_document(outcome, db, asked), as_json, lambda: _text(outcome, db, asked))
            return
        with Bars(quiet) as bars:
            found = Shelf(phones).run(work, bars.of_device)
    result = {
        "devices": {name: _document(o, db, asked) for name, o in sorted(found.outcomes.items())},
        "failed": {name: str(e) for name, e in sorted(found.failures.items())},
    }

    def text() -> str:
        parts = [f"{name}: {_text(o, db, asked)}" for name, o in sorted(found.outcomes.items())]
        parts += [f"{name}: not done: {e}" for name, e in sorted(found.failures.items())]
        return "\n\n".join(parts)

    print_result(result, as_json, text)
    if found.failures:
        first = next(iter(found.failures.values()))
        raise type(first)(
            f"{len(found.failures)} of {len(phone_names)} devices were not measured to the end. What "
            "was measured is kept; the same command goes on from there."
        )


@contextlib.contextmanager
def reached(names: Sequence[str], threads: int | None, ray: str | None) -> Iterator[list[Device]]:
    """Devices by name; with a Ray cluster those of its nodes too, for as long as this lasts."""
    from . import devices as d

    if ray is None:
        yield [d.connect(name, threads=threads) for name in names]
        return
    from .search.device_workers import device_on
    from .search.workers import workers_from

    with workers_from(None, ray) as workers:
        yield [device_on(workers, name, threads=threads) for name in names]


def _few_of(space: SearchSpace | None, given: dict[str, Any]) -> Sequence[Operator] | None:
    """The operators of a space that tell most, where a user asked for so many; None for all.

    Raises:
        InvalidArgument: Options that do not go together, or a count out of range.
    """
    from .latency_model.selection import choose_operators

    named = {name for name, value in given.items() if value is not None}
    if named and space is None:
        raise InvalidArgument(f"{min(named)} chooses among a space's operators: give --space too")
    if named >= {"--like", "--operators"}:
        raise InvalidArgument("--operators beside --like: with --like give --measurements instead")
    if "--measurements" in named and "--like" not in named:
        raise InvalidArgument("--measurements without --like: name the device that it resembles")
    return (
        choose_operators(space, given["--operators"]) if space and "--operators" in named else None
    )


def celsius(text: str | None) -> float | None:
    """A temperature as the user writes it.

    >>> celsius("45C"), celsius("45 °C"), celsius("45")
    (45.0, 45.0, 45.0)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*°?[cC]?\s*", text)
    if found is None or not 0 < float(found[1]) < 150:
        raise InvalidArgument(f"--wait-below: a temperature in °C, as 45C, got {text!r}")
    return float(found[1])


def _document(outcome: Outcome, db: str, asked: Collection[str]) -> dict[str, Any]:
    return {
        "networks": {n: m.latency_ms for n, m in outcome.results.items() if n in asked},
        "measured": outcome.measured,
        "reused": outcome.reused,
        "rejected": outcome.rejected,
        "unstable": dict(outcome.unstable),
        "doubtful": dict(outcome.doubtful),
        "seconds": round(outcome.seconds, 3),
        "busy_s": round(outcome.busy_s, 3),
        "conditions": outcome.conditions.to_dict(),
        "verdict": {"stable": outcome.verdict.stable, "text": outcome.verdict.text},
        "store": shown_db(db),
    }


def _text(outcome: Outcome, db: str, asked: Collection[str]) -> str:
    lines = [
        f"{outcome.measured} subject{'s' * (outcome.measured != 1)} measured, "
        f"{outcome.reused} found in {shown_db(db)}, "
        f"{outcome.rejected} reading{'s' * (outcome.rejected != 1)} rejected and taken again, {outcome.seconds:.0f} s",
        f"conditions: {outcome.conditions}",
        f"verdict: {outcome.verdict.text}",
    ]
    mark = "●" if outcome.conditions.origin == "measured" else "◌"
    lines += [
        f"{mark} {m.latency_ms:.3f} ms ±{m.spread:.1%}  {name}"
        for name, m in outcome.results.items()
        if name in asked
    ]
    lines += [f"given up: {name}: {why}" for name, why in list(outcome.unstable.items())[:10]]
    lines += [f"doubtful: {name}: {why}" for name, why in list(outcome.doubtful.items())[:5]]
    for name in list({**outcome.unstable, **outcome.doubtful})[:1]:
        kind = _kind_of(name)
        if not kind:
            continue  # a file, whose path is not known here: the same command with --again
        lines.append(
            f"once more, that one alone:  phonenas profile --device {outcome.conditions.device} "
            f"--{kind} '{name}' --again"
        )
    return "\n".join(lines) + origin_note(outcome.conditions)


def _kind_of(name: str) -> str:
    """The option of `profile` that takes a subject by its name; "" for none."""
    from .space import Kernel, Operator

    if " " in name:
        return "network"
    for kind, parse in (("operator", Operator.parse), ("kernel", Kernel.parse)):
        try:
            parse(name)
        except InvalidArgument:
            continue
        return kind
    return ""
