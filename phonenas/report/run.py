"""write_report(): a run as one HTML page that opens offline and loads nothing."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import Any

from phonenas.data.files import refuse_other, write_atomic
from phonenas.latency_model import LatencyModel
from phonenas.latency_model import load as load_model
from phonenas.search.checkpoint import of_this_run
from phonenas.search.promotion.result import read_promoted
from phonenas.search.run_document import estimate_of, model_file
from phonenas.search.run_folder import Loaded, load, lock_run
from phonenas.search.strategies import names, options_given
from phonenas.space.errors import PhonenasError, UnsupportedFormat

from .front import course_section, drawings_section, front_table, objectives_plot
from .heat_map import heat_map_section
from .page import TARGET, YES, Page, listed, number, table, told
from .promoted import exported_files, promoted_section
from .references import (
    Reference,
    gain_sentence,
    known_beside,
    read_references,
    reference_trace,
    references_section,
)
from .rounds import rounds_section
from .several import OfDevice, headline, of_devices, on_the_front
from .traces import FILE as TRACES
from .traces import read_traces, traces_section
from .validation import measured_in, read_validation

__all__ = ["write_report"]

log = logging.getLogger("phonenas")
_SCORES = (
    ("n", "networks", "{:.0f}"),
    ("mape", "mean absolute error (MAPE)", "{:.1%}"),
    ("bias", "bias, + predicts too much", "{:+z.1%}"),
    ("acc5", "within ±5 %", "{:.0%}"),
    ("acc10", "within ±10 %", "{:.0%}"),
    ("rmse_ms", "RMSE", "{:.3f} ms"),
    ("spearman", "Spearman's ρ", "{:.3f}"),
    ("kendall_tau", "Kendall's τ", "{:.3f}"),
    ("coverage90", "inside the 90 % interval", "{:.0%}"),
)
_MODELS = {"model": "model", "lookup_table": "raw lookup-table sum", "macs": "MACs baseline"}


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write a run as one HTML page: front, validation, conditions, settings.

    What is damaged in the folder beside the run itself (a round, a model) is logged as a warning
    and listed on the page.

    Args:
        run_dir: Folder of a finished run; the page says where a validation is missing.
        out: The file; `report.html` in the run by default.
    Returns:
        The file written; it was written whole or not at all.
    Raises:
        UnknownName: There is no run.
        UnsupportedFormat: The run or its validation is unfinished, damaged or of another version.
        StoreError: The file cannot be written; or it goes into the run's folder, and another
            process works there.
    """
    run = load(run_dir)
    into = run_dir / "report.html" if out is None else out
    refuse_other(into)
    with lock_run(run_dir) if into.parent.resolve() == run_dir.resolve() else nullcontext():
        return _written(run, into)


def _written(run: Loaded, into: Path) -> Path:
    run_dir, done = run.path, read_promoted(run.path)
    remedy = "Move it away, then give the same command again."
    digest = None if done is None else done.run or None
    of_this_run(run_dir / "promoted.json", digest, run.settings, remedy)
    views, devices = of_devices(run), []
    for view in views:
        validation, path = read_validation(view.path), view.path / "validation.json"
        of_this_run(path, (validation or {}).get("run"), view.settings, remedy)
        known = {c.id: c.block_args for c in view.front}
        if validation and any(
            known.get(v["id"]) != v["block_args"] for v in validation["networks"]
        ):
            raise UnsupportedFormat(
                f"{path} names networks that the front of this run does not hold. Validate again:  "
                f"phonenas validate {shlex.quote(str(run_dir))} --device ..."
            )
        devices.append(OfDevice(view, validation, len(views) > 1))
    page = Page(f"phonenas: networks for {' and '.join(d.device for d in devices)}")
    origins = {d.origin for d in devices}
    # Of unlike origins each device's part of the page has its own.
    origin = origins.pop() if len(origins) == 1 else "measured"
    return write_atomic(into, page.html(_sections(devices, page), origin))


def _damages(run: Loaded) -> list[str]:
    """What is missing or cannot be read beside the run itself; each is logged as a warning."""
    made = sorted(p for name in ("round", "device") for p in run.path.glob(f"{name}[0-9]*"))
    files: list[tuple[Path, Callable[[Path], object]]] = [
        *((run.path / model_file(run.settings, device), load_model) for device in run.devices),
        *((path, load_model) for path in _by_precision(run).values()),
        (run.path / "references.json", lambda _: read_references(run)),
        (run.path / TRACES, lambda _: read_traces(run)),
    ]
    for folder in [p for p in made if p.is_dir()]:
        files += [
            (folder / "run.json", lambda path: load(path.parent)),
            (folder / "validation.json", lambda path: read_validation(path.parent)),
            (folder / "model.json", load_model),
        ]
    damages = []
    for path, read in files:
        try:
            if path.exists():
                read(path)
        except PhonenasError as error:
            damages.append(str(error))
    if not (run.path / "checkpoint.npz").exists():
        damages.append(
            f"{run.path / 'checkpoint.npz'} is missing: the networks that the search evaluated are "
            "neither drawn nor counted."
        )
    for damage in damages:
        log.warning("%s", damage)
    return damages


def _sections(devices: Sequence[OfDevice], page: Page) -> list[str]:
    first = devices[0]
    run, validation = first.run, first.validation
    known = known_beside(run)
    marks = ", ● is measured" * any(d.measurable for d in devices)
    body = [_headline(run, validation) if len(devices) == 1 else headline(devices)]
    if said := gain_sentence(run.front, known, measured_in(run)):
        body.append(f"<p><b>{escape(said)}.</b></p>")
    if damages := _damages(run):
        body.append(f'<div class="notes">{"".join(f"<p>{escape(d)}</p>" for d in damages)}</div>')
    body += [
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        f"<h2>The front</h2><p>○ is predicted{marks}, here and everywhere below.</p>",
        *(_front(d, page, known if d is first else ()) for d in devices),
        objectives_plot(run, page),
        references_section(known),
    ]
    for d in devices:
        part: list[str] = []
        if d.validation and d.validation["networks"]:
            part = _validation_sections(d, d.validation, page)
        elif d.measurable:
            words = ["phonenas", "validate", str(run.path), "--device", d.device]
            part.append(
                f"<h2>Validated{d.heading}</h2><p>No validation yet. It measures the best "
                "networks, compares them with the prediction and shows the times of their "
                f"operators: <code>{escape(shlex.join(words))}</code></p>"
            )
        body += [told(text, d.origin) if d.several else text for text in part]
    models = [_model(run, d.device) for d in devices]
    body += [drawings_section(devices, models[0]), front_table(devices)]
    for d, model in zip(devices, models, strict=True):
        shown = heat_map_section(run, model, d.heading)
        body.append(told(shown, d.origin) if d.several else shown)
    for precision, path in _by_precision(run).items():
        body.append(heat_map_section(run, _read_model(path), f" in {precision}"))
    body += [traces_section(run), promoted_section(run.path, page)]
    return [*body, course_section(run, page), _settings(run)]


def _front(d: OfDevice, page: Page, known: Sequence[Reference]) -> str:
    """The plot of the front by latency on a device, with known networks beside it."""
    from . import plots

    points = plots.front_points(d.run, d.validation)
    evaluated, where = len(d.run.evaluations()), d.device if d.several else ""
    front = plots.front_figure(points, d.run.front.target_ms, evaluated, where)
    if known:
        drawn = [p.latency_ms for p in points]
        front.add_trace(reference_trace(known, (min(drawn), max(drawn))))
    return page.draw(f"front{d.suffix}", front, d.origin)


def _model(run: Loaded, device: str) -> LatencyModel | None:
    """The model that predicted on a device; None where it cannot be read, which `_damages` told."""
    return _read_model(run.path / model_file(run.settings, device))


def _by_precision(run: Loaded) -> dict[str, Path]:
    """The files of the models of a run over precisions, which has no other; none of another run."""
    names = run.precision.split(" or ")
    return {p: run.path / f"model.{p}.json" for p in names if len(names) > 1}


def _read_model(path: Path) -> LatencyModel | None:
    try:
        return load_model(path)
    except PhonenasError:
        return None


def _validation_sections(d: OfDevice, validation: dict[str, Any], page: Page) -> list[str]:
    from . import plots

    run = d.run
    body = [
        f"<h2>Validated networks{d.heading}</h2>",
        listed(_NETWORKS, validation["networks"], _block_string),
    ]
    body.append(_NETWORKS_EXPLAINED)
    body.append(_figures(validation["networks"]))
    body.append(exported_files([(v["id"], v.get("file")) for v in validation["networks"]]))
    body += [
        f'<p class="bad">Network {u["id"]} gave no stable measurement: {escape(u["reason"])}.</p>'
        for u in validation["unmeasured"]
    ]
    if validation["rounds"]:
        body.append(rounds_section(validation, run.path))
    calibration = plots.calibration_figure(plots.calibration_points(validation))
    drawn = page.draw(f"calibration{d.suffix}", calibration, d.origin)
    body += [f"<h2>Predicted against measured{d.heading}</h2>", drawn]
    body += [_scores(validation), f"<h2>Where the milliseconds go{d.heading}</h2>"]
    operators = plots.operator_points(validation)
    if operators:
        whole = {v["id"]: v["measured_ms"] for v in validation["networks"]}
        figure = plots.operator_figure(operators, whole)
        body.append(page.draw(f"operators{d.suffix}", figure, d.origin))
        body.append(
            '<p class="soft">Blocks by the side of their input map. A hatched operator was not '
            "measured alone: the model's regressor predicted it.</p>"
        )
    else:
        body.append("<p>The validation has no times by operator.</p>")
    return [*body, _conditions(validation, d.heading)]


def _headline(run: Loaded, validation: Mapping[str, Any] | None) -> str:
    target_ms, given = run.front.target_ms, str(run.settings.get("target", ""))
    device = str(run.settings["device"])
    text, estimate = "No target was set.", escape(str(estimate_of(run.settings, run.front)))
    if target_ms is not None:
        text = f"The target is <b>{target_ms:.2f} ms</b>"
        text += "." if given == f"{target_ms:g}" else f", given as <b>{escape(given)}</b>."
    networks: list[dict[str, Any]] = [] if validation is None else validation["networks"]
    facts = [(f"{len(run.evaluations()):,}", "networks evaluated by prediction")]
    facts.append((f"{len(run.front)}", on_the_front(run.front)))
    if validation is None or not networks:
        best = max(run.front, key=lambda c: c.top1, default=None)
        done = read_promoted(run.path)
        if n := sum(n.measured_ms is not None for n in done.networks) if done else 0:
            text += f" {n} of its networks were trained in full and measured: see below."
        elif OfDevice(run, None).measurable:
            text += " Nothing has been measured yet."
        if best is not None:
            text += (
                f" By prediction the most accurate is <b>network {best.id}</b>: "
                f"○ {best.latency_ms:.2f} ms ({best.low_ms:.2f} to {best.high_ms:.2f}), "
                f"{estimate} {best.top1:.1%}."
            )
    else:
        n = len(networks)
        good = [v for v in networks if v["verdict"] in ("meets", "likely", None)]
        if not good:
            text += f" <b>None of the {n} validated networks meets it as measured.</b> The fastest"
        else:
            meeting = " Of those that meet it as measured, or likely do, "
            text += meeting if target_ms is not None else " Of all, "
            text += "the most accurate"
        v = max(good or networks, key=lambda v: v["top1"] if good else -v["measured_ms"])
        text += (
            f" is <b>network {v['id']}</b>: predicted ○ {v['predicted_ms']:.2f} ms "
            f"({v['low_ms']:.2f} to {v['high_ms']:.2f}), <b>measured ● "
            f"{v['measured_ms']:.2f} ms</b>, {estimate} {v['top1']:.1%}."
        )
        if target_ms is not None:
            facts.append(
                (f"{len(good)} of {n}", "validated meet the target as measured, or likely")
            )
        inside = sum(bool(v["inside"]) for v in networks)
        facts.append((f"{inside} of {n}", "measured inside their 90 % interval"))
        if validation.get("device", device) != device:
            text += f" <b>They were measured on {escape(str(validation['device']))}.</b>"
    tiles = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in facts)
    what = "" if validation is None else str(validation["conditions"].get("model", ""))
    title = f'<h1>Networks for {escape(device)}</h1><p class="soft">{escape(what)}</p>'
    return f'{title}<p class="lead">{text}</p><ul class="facts">{tiles}</ul>'


def _top1(v: Mapping[str, Any]) -> str:
    text = f"{v['top1']:.1%} ± {number(v.get('top1_error'), '{:.1%}')}"
    return text + (" extrapolated" if v["outside"] else "")


def _interval_ms(v: Mapping[str, Any]) -> str:
    return f"○ {v['predicted_ms']:.2f} ({v['low_ms']:.2f} to {v['high_ms']:.2f})"


_NETWORKS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("id", lambda v: str(v["id"])),
    ("○ top-1 estimate", _top1),
    ("predicted, ms (90 % interval)", _interval_ms),
    ("measured, ms", lambda v: f"● {v['measured_ms']:.2f} ± {v['spread']:.1%}"),
    ("error", lambda v: f"{v['error']:+z.1%}"),
    ("inside", lambda v: YES[v["inside"]]),
    ("target", lambda v: TARGET[v["verdict"]]),
    ("MACs, M", lambda v: number(v.get("macs"), "{:.0f}", 1e6)),
    ("params, M", lambda v: number(v.get("params"), "{:.2f}", 1e6)),
)
_NETWORKS_EXPLAINED = (
    '<p class="soft">± after top-1 is one standard error; after a measurement it is half its '
    "90 % interval, which decides whether it meets the target. The error is that of the "
    "prediction, relative to the measurement. "
    "<b>extrapolated</b>: the network lies outside the data that the accuracy estimator was fitted "
    "on, so its top-1 is an extrapolation. A click selects a whole block string.</p>"
)


_FIGURES = (
    ("p50, ms", "p50_ms", "● {:.2f}", 1.0),
    ("p90, ms", "p90_ms", "● {:.2f}", 1.0),
    ("load, ms", "load_ms", "● {:.1f}", 1.0),
    ("first inference, ms", "first_ms", "● {:.2f}", 1.0),
    ("peak memory, MB", "peak_bytes", "● {:.1f}", 1e6),
    ("of the model, MB", "model_bytes", "● {:.1f}", 1e6),
    ("file, MB", "file_bytes", "{:.1f}", 1e6),
    ("energy, mJ", "energy_mj", "● {:.1f}", 1.0),
)


def _figures(networks: Sequence[Mapping[str, Any]]) -> str:
    """What was measured besides the latency; "" where nothing was."""
    known = [v for v in networks if any(v.get(key) is not None for _, key, _, _ in _FIGURES)]
    if not known:
        return ""
    shown = [f for f in _FIGURES if f[1] != "energy_mj" or any(v.get(f[1]) for v in known)]
    rows = [
        (v["id"], *(number(v.get(key), form, per) for _, key, form, per in shown)) for v in known
    ]
    return table(("id", *(title for title, *_ in shown)), rows) + (
        '<p class="soft">p50 and p90 are of single runs that the scheduler did not interrupt. '
        "Loading, the first inference and memory are of a process of its own, which holds the "
        "runtime and this network alone.</p>"
    )


def _block_string(v: Mapping[str, Any]) -> str:
    return f"<code>{escape(v['block_args'])}</code>"


def _scores(validation: Mapping[str, Any]) -> str:
    model = validation["model"]
    columns = [("this validation", validation["score"])]
    columns += [(title, model["scores"].get(name) or {}) for name, title in _MODELS.items()]
    rows = [
        (title, *(number(column.get(name), form) for _, column in columns))
        for name, title, form in _SCORES
    ]
    notes = [
        f'<p class="bad">{escape(title)}: {escape(str(column.get("reason", "")))}</p>'
        for title, column in columns
        if column.get("informative") is False
    ]
    fitted = f"{model.get('operators', '–')} operators and {model.get('networks', '–')} networks"
    return "".join([table(("", *(title for title, _ in columns)), rows), *notes]) + (
        f'<p class="soft">The model was fitted on {escape(fitted)}, measured until '
        f"{escape(str(model.get('date', '–'))[:10])}. The last three columns are over the same "
        "networks; each is predicted by a fit that it took no part in.</p>"
    )


def _conditions(validation: Mapping[str, Any], heading: str) -> str:
    kind = "good" if validation["verdict"].get("stable") else "bad"
    rows = [(k.replace("_", " "), v) for k, v in validation["conditions"].items()]
    rows.append(("rejected readings", validation.get("rejected", "–")))
    rows.append(("validated at", validation.get("at", "–")))
    text = str(validation["verdict"].get("text", "no verdict was given"))
    return f'<h2>Conditions{heading}</h2><p class="{kind}">{escape(text)}</p>' + table(
        (), rows, "words"
    )


def _settings(run: Loaded) -> str:
    s = run.settings
    options: tuple[str, ...] = ("device", "space", "resolution_px", "strategy", "target")
    options += ("evaluations", "seed", "patience", "halving")
    given = [(o.removesuffix("_px"), s[o]) for o in options if s.get(o) not in (None, "")]
    if several := s.get("devices", []):
        given = [pair for pair in given if pair[0] not in ("device", "target")]
        given[:0] = [("device", d["device"]) for d in several]
        given += [("target", f"{d['device']}={d['target']}") for d in several if d["target"]]
        weights = zip(several, s.get("device_weights", ()), strict=False)
        given += [("across", s["across"])]
        given += [("weight", f"{d['device']}={w:g}") for d, w in weights]
    given += [("min-epochs", s["min_epochs"])] if "min_epochs" in s else []
    for option, name in (("time", "time_s"), ("budget", "training_s")):
        given += [(option, f"{s[name]:f}s")] if name in s else []
    for option, name in (("also", "also"), ("limit", "limits")):
        given += [(option, text.split(" (")[0]) for text in s.get(name, ())]
    given += [("chance", s["chance"])] if "chance" in s else []
    given += [*s.get("asked", {}).items(), ("out", run.path)]
    models = [run.path / model_file(s, device) for device in run.devices]
    given += [("model", m) for m in models if m.exists()]
    given += [("accuracy", "surrogate")] if str(s["accuracy"]).startswith("surrogate-") else []
    given.append(("trust", s.get("trust", 0)))
    given += [("set", f"{name}={value}") for name, value in options_given(s).items()]
    estimate = estimate_of(s, run.front)
    parts = [f"--{o} {shlex.quote(str(v))}" if v != "" else f"--{o}" for o, v in given]
    parts += ["--soft"] * bool(s.get("soft"))
    known = f", from the same {s['start_from']} (--start-from)" if "start_from" in s else ""
    command = " ".join(f'<span class="nobr">{escape(p)}</span>' for p in parts)
    again = (
        f"<p>The same search again, with the same model{escape(known)}:</p>"
        '<div class="box command" '
        f'tabindex="0"><code>phonenas search {command}</code></div>'
        if s.get("strategy") in names()
        else "<p>Not a search of its own: the networks that another run evaluated, ranked again "
        "after measuring.</p>"
    )
    lists = ("asked", "devices")  # which the command above and the table of devices tell
    rows = [(k.replace("_", " "), "–" if v is None else v) for k, v in s.items() if k not in lists]
    rows += [("seconds", f"{run.seconds:.1f}"), ("hypervolume", f"{run.front.hypervolume:.4f}")]
    rows += [(name, f"version {version}") for name, version in run.libraries.items()]
    return (
        f"<h2>The search</h2>{again}{table((), rows, 'words')}"
        f"<h2>What {escape(estimate.quantity)} means here</h2><p>{escape(estimate.scale)}</p>"
    )
