"""Commands that use devices: list them, and measure them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, UnstableDevice
from phonenas.space.naming import counted
from phonenas.space.precision import checked_precision

from .options import (
    InputFile,
    Output,
    OwnResolution,
    Precision,
    Ray,
    Seed,
    Shapes,
    Threads,
    celsius,
    command,
)
from .output import command_line, completed, figures_table, origin_note, shown_db, table
from .stores import open_store, refuse_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from phonenas.data import MeasurementStore
    from phonenas.devices import Device, Outcome, Protocol
    from phonenas.space import Architecture, Kernel, Operator
    from phonenas.space.detection.ssdlite import SSDLite
    from phonenas.space.graph import NetworkGraph
    from phonenas.space.kernels.lifted import LiftedKernel
    from phonenas.space.onnx_file import OnnxFile
    from phonenas.space.ort_file import OrtFile
    from phonenas.space.tflite_file import TfliteFile

__all__ = ["devices", "profile", "profile_kernels", "reached"]


@command
def devices(
    output: Output,
    begins: Annotated[
        str, typer.Argument(metavar="[NAME]", help="With --ready: those whose names begin so.")
    ] = "",
    ready: Annotated[
        bool, typer.Option("--ready", help="The phones that others measured: none is needed.")
    ] = False,
) -> None:
    """List the devices that can be measured, and what to do where one cannot be reached."""
    from dataclasses import asdict

    if ready:
        from .tables import ready_phones, ready_table

        shipped = ready_phones(begins)
        output.print([asdict(p) for p in shipped], lambda: ready_table(shipped))
        return
    if begins:
        raise InvalidArgument(
            f"a name goes with --ready:  {command_line('devices', '--ready', begins)}"
        )
    from phonenas.devices import listing

    found = [asdict(s) for s in listing()]
    header = ["name", "kind", "state", "model", "cores", "runtime", "detail"]
    output.print(found, lambda: table(header, [[str(r[h]) for h in header] for r in found]))


@command
def profile(
    output: Output,
    db: str,
    device: Annotated[
        list[str] | None,
        typer.Option(help="As `phonenas devices` lists it; repeatable, several run side by side."),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Measure its operators; mnasnet without --network. {spaces}.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Also this whole network, detector or file (.onnx, .tflite, .ort); repeatable."
        ),
    ] = None,
    operator: Annotated[
        list[str] | None, typer.Option(help="Also this operator, by its key; repeatable.")
    ] = None,
    kernel: Annotated[
        list[str] | None, typer.Option(help="Also this kernel, by its key; repeatable.")
    ] = None,
    kernels: Annotated[
        int | None,
        typer.Option(
            help="Number of kernels, measured with random networks, to predict any ONNX file."
        ),
    ] = None,
    kernels_of: Annotated[
        list[str] | None,
        typer.Option(help="Every kernel of this .onnx file or detector; repeatable."),
    ] = None,
    operators: Annotated[
        int | None,
        typer.Option(help="Measure only this many of the space's operators, the most informative."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A device measured in full, a ready phone, or its own other precision."),
    ] = None,
    measurements: Annotated[
        int | None, typer.Option(help="Operators and networks, chosen by --like; 30 with it.")
    ] = None,
    networks: Annotated[
        int | None, typer.Option(help="Random whole networks; 20, or part of --measurements.")
    ] = None,
    resolution: OwnResolution = None,
    shape: Shapes = None,
    input_: InputFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: a first look.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure again what the store has.")
    ] = False,
    mode: Annotated[
        str, typer.Option(help="steady; or sustained: whole networks after minutes of load.")
    ] = "steady",
    sustain: Annotated[float, typer.Option(help="Seconds of load before sustained speed.")] = 180.0,
    wait_below: Annotated[
        str | None, typer.Option(help="Wait until the device is cooler, for example 45C.")
    ] = None,
    threads: Threads = None,
    precision: Precision = None,
    ray: Ray = None,
    seed: Seed = 0,
) -> None:
    """Measure devices: every operator of a space, and some whole networks."""
    from phonenas import devices as d
    from phonenas import space as spaces
    from phonenas.devices.measuring.pool import DevicePool
    from phonenas.latency_model.transfer.source_devices import choose_for

    from .networks import (
        find,
        given_inputs,
        is_file,
        kernels_in,
        network_file,
        other,
        refuse_other_precision,
    )
    from .progress import Bars
    from .spaces import few_of

    for name in device or ():
        refuse_ready(name)
    if precision is not None:
        checked_precision(precision)
    if mode not in ("steady", "sustained"):
        raise InvalidArgument(f"--mode: steady or sustained, got {mode!r}")
    protocol = replace(
        d.QUICK if quick else d.Protocol(),
        mode=mode,  # type: ignore[arg-type]
        sustain_s=sustain,
        wait_below_c=celsius(wait_below),
        seed=seed,
    )
    if mode == "steady":
        output.refuse("sustain", "acts only with --mode sustained")
    wholes = network or []
    inputs = given_inputs(output, [*wholes, *(kernels_of or [])], shape, resolution, input_)
    others = {n: o for n in wholes if not is_file(n) and (o := other(n, 1.0, resolution))}
    files: list[OnnxFile | OrtFile | TfliteFile | SSDLite | NetworkGraph] = [
        network_file(n.strip(), inputs) for n in wholes if is_file(n)
    ]
    for file in files if not output.quiet else ():
        for note in getattr(file, "notes", ()):
            output.note(f"{file.key}: {note}")
    files += others.values()
    layered = [n for n in wholes if not is_file(n) and n not in others]
    named = [find(n, 1.0, resolution) for n in layered]
    lone_kernels: list[Kernel | LiftedKernel] = [spaces.Kernel.parse(k) for k in kernel or []]
    lone_kernels += kernels_in(kernels_of or [], resolution, inputs)
    keys = [spaces.Operator.parse(key) for key in operator or []]
    named_texts = {f.key: f.key for f in files}
    named_texts |= dict(zip(map(str, named), (n.strip() for n in layered), strict=True))
    asked = {*named_texts, *(k.key for k in lone_kernels), *(o.key for o in keys)}
    phone_names = list(dict.fromkeys(device or ["local"]))
    alone = bool(named or keys or files or lone_kernels)
    spaceless = space is None and (alone or kernels is not None)
    searched = None if spaceless else spaces.get(space or "mnasnet", resolution)
    if spaceless and not (named or others or kernels_of or files):
        output.refuse("resolution", "changes nothing here: no space and no network of one is named")
    alike = like is not None or measurements is not None
    if networks and spaceless and kernels is None:
        output.refuse("networks", "is the number of random networks of a space: add --space")
    count = 20 if networks is None else networks
    given = {"--like": like, "--operators": operators, "--measurements": measurements}
    few = few_of(searched, given, networks)
    if kernels is not None and mode != "steady":
        raise InvalidArgument(
            "--kernels: kernels are measured only in steady mode; leave --mode out"
        )

    with (
        reached(phone_names, threads, ray, precision) as phones,
        open_store(db, create=True) as store,
    ):

        def work(phone: Device, tell: Any) -> Outcome:
            bars.timed_by(phone.conditions)
            refuse_other_precision(phone, precision, [*files, *lone_kernels], kernels)
            if kernels is not None:
                found = profile_kernels(
                    phone, store, kernels, count, protocol=protocol, again=again, on_event=tell
                )
                if spaceless and not alone:
                    return found
            only: Sequence[Operator] | None = few
            chosen: Sequence[Architecture] = ()
            if alike and searched is not None:
                given_like = (like or phone.name, searched, measurements or 30, networks)
                only, chosen = choose_for(store, phone.conditions, *given_like)
            return d.profile(
                searched,
                on=phone,
                into=store,
                networks=count if searched and not alike else 0,
                more=d.Selection(only, named, chosen, keys, lone_kernels, files),
                protocol=protocol,
                again=again,
                on_event=tell,
            )

        if len(phones) == 1:
            with phones[0] as phone, Bars(output.quiet) as bars:
                outcome = work(phone, bars.profiling)
            output.print(
                _document(outcome, db, named_texts), lambda: _text(outcome, db, named_texts)
            )
            _refuse_lacking([outcome], asked, named_texts)
            return
        with Bars(output.quiet) as bars:
            found = DevicePool(phones).run(work, bars.of_device)
    failed = {n: completed(str(e), db, n) for n, e in sorted(found.failures.items())}
    result = {
        "devices": {
            name: _document(o, db, named_texts) for name, o in sorted(found.outcomes.items())
        },
        "failed": failed,
    }

    def text() -> str:
        parts = [
            f"{name}: {_text(o, db, named_texts)}" for name, o in sorted(found.outcomes.items())
        ]
        parts += [f"{name}: not done: {reason}" for name, reason in failed.items()]
        return "\n\n".join(parts)

    output.print(result, text)
    if found.failures:
        first = next(iter(found.failures.values()))
        raise type(first)(
            f"{len(found.failures)} of {len(phone_names)} devices were not measured to the end. "
            "What was measured is kept; the same command goes on from there."
        )
    _refuse_lacking(found.outcomes.values(), asked, named_texts)


def _refuse_lacking(
    outcomes: Iterable[Outcome], asked: Collection[str], names: Mapping[str, str]
) -> None:
    """UnstableDevice where subjects that were asked for by name gave no number."""
    from phonenas.devices.measuring.progress import is_disturbed

    lost = [
        (o.conditions.device, *x) for o in outcomes for x in o.unstable.items() if x[0] in asked
    ]
    if lost:
        told = "; ".join(f"{names.get(n, n)} on {device}: {why}" for device, n, why in lost)
        busy = all(is_disturbed(why) for _, _, why in lost)
        how = "Close other programs, then give the same command again."
        raise UnstableDevice(
            f"{len(lost)} of the subjects named gave no number ({told}). What was measured is "
            f"kept. {how if busy else 'Measure them again with --again.'}"
        )


def profile_kernels(
    phone: Device,
    store: MeasurementStore,
    n: int,
    networks: int,
    *,
    protocol: Protocol | None = None,
    again: bool = False,
    on_event: Callable[[Any], None] | None = None,
) -> Outcome:
    """Measure n kernels and some random networks: half of the kernels evenly, half where it errs.

    A quarter of the even half, and half of the networks, are small ones.

    What the store holds counts, so a stopped job goes on with the same call.

    Args:
        phone: Entered.
        store: Where it goes.
        n: Kernels in all, ≥ 1.
        networks: Random networks, whole; 8 or more calibrate.
        protocol: As for `devices.profile`; its seed is also that of the kernels drawn.
    """
    from phonenas import devices as d
    from phonenas.devices.measuring.profiling import joined
    from phonenas.latency_model.kernel_fitting import finer, kernel_times, small_kernels
    from phonenas.space import Kernel
    from phonenas.space.kernels.prior import sample
    from phonenas.space.kernels.random_cnn import RandomCNN

    if n < 1 or networks < 0:
        raise InvalidArgument(
            f"--kernels: 1 or more, got {n}; --networks 0 or more, got {networks}"
        )

    protocol = protocol or d.Protocol()
    seed = protocol.seed

    drawn = [RandomCNN(i // 2, small=i % 2 == 1) for i in range(networks)]

    def measure(kernels: Sequence[Kernel], wholes: int) -> Outcome:
        return d.profile(
            None,
            on=phone,
            into=store,
            networks=0,
            more=d.Selection(kernels=kernels, files=drawn[:wholes]),
            protocol=protocol,
            again=again,
            on_event=on_event,
        )

    half = (n + 1) // 2
    small = small_kernels(half // 4, seed)
    even = [*small, *(k for k in sample(half, seed) if k not in small)][:half]
    first = measure(even, networks)
    taken = store.measurements(first.conditions, "kernel")
    known = kernel_times(taken)
    if again:
        # Those that were chosen where the model erred are measured again too; no others are chosen.
        keys = {k.key for k in even}
        others = [k for k in known if k.key not in keys and k.kind != "node"]
        chosen = others[: n // 2]
    else:
        # What a stopped job had begun is finished before more is chosen.
        begun = map(Kernel.parse, store.begun(first.conditions, "kernel"))
        chosen = [k for k in begun if k.kind != "node"]
        chosen += finer(known, max(0, n - max(len(even), len(known)) - len(chosen)), seed)
    if not chosen:
        return first
    return joined(first, measure(chosen, 0))


@contextlib.contextmanager
def reached(
    names: Sequence[str], threads: int | None, ray: str | None, precision: str | None = None
) -> Iterator[list[Device]]:
    """Devices by name; with a Ray cluster those of its nodes too, for as long as this lasts."""
    from phonenas import devices as d

    if ray is None:
        yield [d.connect(name, threads=threads, precision=precision) for name in names]
        return
    from phonenas.search.cluster.device_workers import device_on
    from phonenas.search.cluster.workers import workers_from

    with workers_from(None, ray) as workers:
        settings: dict[str, Any] = {"threads": threads, "precision": precision}
        yield [device_on(workers, name, **settings) for name in names]


def _document(outcome: Outcome, db: str, names: Collection[str]) -> dict[str, Any]:
    return {
        "networks": {n: m.latency_ms for n, m in outcome.results.items() if n in names},
        "precisions": {n: m.conditions.precision for n, m in outcome.results.items() if n in names},
        "figures": {n: m.figures for n, m in outcome.results.items() if n in names},
        **{name: getattr(outcome, name) for name in ("measured", "reused", "rejected")},
        "unstable": dict(outcome.unstable),
        "doubtful": dict(outcome.doubtful),
        "seconds": round(outcome.seconds, 3),
        "busy_s": round(outcome.busy_s, 3),
        "conditions": outcome.conditions.to_dict(),
        "verdict": {"stable": outcome.verdict.stable, "text": outcome.verdict.text},
        "store": shown_db(db),
    }


def _text(outcome: Outcome, db: str, names: Mapping[str, str]) -> str:
    """What a profile prints; `names` has what the user called each subject."""
    from phonenas.devices.measuring.progress import is_disturbed

    from .progress import shortened, subjects_by_reason

    clock = " of simulated time" if outcome.conditions.origin == "simulated" else ""
    lines = [
        f"{counted(outcome.measured, 'subject')} measured, {outcome.reused} found in "
        f"{shown_db(db)}, {counted(outcome.rejected, 'reading')} rejected and taken again, "
        f"{outcome.seconds:.0f} s{clock}",
        f"conditions: {outcome.conditions}",
        f"verdict: {outcome.verdict.text}",
    ]
    lines += [
        f"{outcome.conditions.mark} {m.latency_ms:.3f} ms ±{m.spread:.1%}  {names[name]}"
        + (f", {m.conditions.precision}" if m.kind == "onnx" else "")
        for name, m in outcome.results.items()
        if name in names
    ]
    named = [(names[n], m.figures) for n, m in outcome.results.items() if n in names]
    lines += filter(None, [figures_table(named, outcome.conditions.mark, "network")])
    lines += subjects_by_reason("given up", outcome.unstable, names, 10)
    lines += subjects_by_reason("uncertain", outcome.doubtful, names, 5)
    disturbed = [why for why in outcome.unstable.values() if is_disturbed(why)]
    if disturbed:
        lines.append("the same command measures again what other programs disturbed: close them")
    rest = {n: w for n, w in {**outcome.unstable, **outcome.doubtful}.items() if w not in disturbed}
    for name in list(rest)[:1]:
        if kind := _kind_of(name):  # none of a file, whose path is not known here
            words = ("profile", "--device", outcome.conditions.device, f"--{kind}", name, "--again")
            lines.append(f"to measure {shortened(name)} again:  {command_line(*words, db=db)}")
    return "\n".join(lines) + origin_note(outcome.conditions)


def _kind_of(name: str) -> str:
    """The option of `profile` that takes a subject by its name; "" for none."""
    from phonenas.space import Kernel, Operator

    if " " in name:
        return "network"
    for kind, parse in (("operator", Operator.parse), ("kernel", Kernel.parse)):
        try:
            parse(name)
        except InvalidArgument:
            continue
        return kind
    return ""
