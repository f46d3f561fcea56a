"""write_report(): a run as one HTML page that opens offline and loads nothing."""

from __future__ import annotations

import logging
import math
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
from phonenas.search.run_document import estimate_of
from phonenas.search.run_folder import Loaded, load, lock_run
from phonenas.search.strategies import names, options_given
from phonenas.search.validation.validate import SAID
from phonenas.search.validation.validation_file import DOCUMENT, checked_validation
from phonenas.space.errors import PhonenasError, UnsupportedFormat

from .front import course_section, drawings_section, front_table, objectives_plot
from .page import TARGET, YES, Page, listed, number, table
from .promoted import exported_files, promoted_section
from .references import (
    gain_sentence,
    known_beside,
    read_references,
    reference_trace,
    references_section,
)
from .rounds import rounds_section

__all__ = ["read_validation", "write_report"]

log = logging.getLogger("phonenas")
_NUMBERS = ("top1", "predicted_ms", "low_ms", "high_ms", "measured_ms", "spread", "error")
_FLAGS = ("inside", "meets_target", "outside")
_SCORES = (
    ("n", "networks", "{:.0f}"),
    ("mape", "mean absolute error (MAPE)", "{:.1%}"),
    ("bias", "bias, + predicts too much", "{:+.1%}"),
    ("acc5", "within ±5 %", "{:.0%}"),
    ("acc10", "within ±10 %", "{:.0%}"),
    ("rmse_ms", "RMSE", "{:.3f} ms"),
    ("spearman", "Spearman's ρ", "{:.3f}"),
    ("kendall_tau", "Kendall's τ", "{:.3f}"),
    ("coverage90", "inside the 90 % interval", "{:.0%}"),
)
_MODELS = {"model": "model", "lookup_table": "raw lookup-table sum", "macs": "MACs baseline"}


def read_validation(run_dir: Path) -> dict[str, Any] | None:
    """What `phonenas validate` wrote into a run; None where it has not been given yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    from .plots import calibration_points, operator_points

    path = run_dir / "validation.json"
    again = f"Write it again:  phonenas validate {shlex.quote(str(run_dir))} --device ..."
    validation = DOCUMENT.read(path, again)
    if validation is None:
        return None
    with DOCUMENT.checking(path, again):
        checked_validation(validation)
        for v in validation["networks"]:
            v |= {n: math.nan if v.get(n) is None else float(v[n]) for n in _NUMBERS}
            v |= {k: _flag(v.get(k)) for k in _FLAGS}
            v["verdict"] = _target_verdict(v)
        validation["unmeasured"] = [
            {"id": int(u["id"]), "block_args": str(u["block_args"]), "reason": str(u["reason"])}
            for u in validation.get("unmeasured") or ()
        ]
        for name in ("verdict", "conditions", "score", "model"):
            validation[name] = dict(validation.get(name) or {})
        validation["model"]["scores"] = dict(validation["model"].get("scores") or {})
        for name in ("rounds", "best"):
            validation[name] = [dict(row) for row in validation.get(name) or ()]
        for row in validation["rounds"]:
            row |= {"round": int(row["round"]), "networks": list(row["networks"])}
            row |= {k: dict(row.get(k) or {}) for k in ("score", "changed")}
        for v in validation["best"]:
            v |= {"round": int(v["round"]), "name": str(v["name"])}
            v |= {k: float(v[k]) for k in ("top1", "predicted_ms", "measured_ms")}
            v["meets_target"] = _flag(v.get("meets_target"))
            v["verdict"] = _target_verdict(v)
        calibration_points(validation), operator_points(validation)
    return validation


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _target_verdict(v: Mapping[str, Any]) -> str | None:
    """What the measurement says of the target; a file of version 0.1 has the value's word alone."""
    if v.get("verdict") in SAID:
        return str(v["verdict"])
    return {True: "meets", False: "misses"}.get(v["meets_target"])


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
    run_dir = run.path
    validation, done = read_validation(run_dir), read_promoted(run_dir)
    for name, digest in (
        ("validation.json", (validation or {}).get("run")),
        ("promoted.json", None if done is None else done.run or None),
    ):
        remedy = "Move it away, then give the same command again."
        of_this_run(run_dir / name, digest, run.settings, remedy)
    known = {c.id: c.block_args for c in run.front}
    if validation and any(known.get(v["id"]) != v["block_args"] for v in validation["networks"]):
        raise UnsupportedFormat(
            f"{run_dir / 'validation.json'} names networks that the front of this run does not "
            f"hold. Validate again:  phonenas validate {shlex.quote(str(run_dir))} --device ..."
        )
    page = Page(f"phonenas: networks for {run.settings['device']}")
    return write_atomic(into, page.html(_sections(run, validation, page), _origin(run, validation)))


def _damages(run: Loaded) -> list[str]:
    """What is missing or cannot be read beside the run itself; each is logged as a warning."""
    rounds = sorted(p for p in run.path.glob("round[0-9]*") if p.is_dir())
    files: list[tuple[Path, Callable[[Path], object]]] = [
        (run.path / "model.json", load_model),
        (run.path / "references.json", lambda _: read_references(run)),
    ]
    for folder in rounds:
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


def _measurable(run: Loaded) -> bool:
    return _origin(run, None) not in ("public", "imported")  # which have no device


def _origin(run: Loaded, validation: Mapping[str, Any] | None) -> str:
    """Where the times come from: not "measured" where the prediction or the validation is not."""
    conditions = [run.model.get("conditions", {}), (validation or {}).get("conditions", {})]
    origins = [str(c.get("origin", "measured")) for c in conditions]
    return next((origin for origin in origins if origin != "measured"), "measured")


def _sections(run: Loaded, validation: dict[str, Any] | None, page: Page) -> list[str]:
    from . import plots

    points = plots.front_points(run, validation)
    front = plots.front_figure(points, run.front.target_ms, len(run.evaluations()))
    known = known_beside(run)
    if known:
        drawn = [p.latency_ms for p in points]
        front.add_trace(reference_trace(known, (min(drawn), max(drawn))))
    body, marks = [_headline(run, validation)], ", ● is measured" * _measurable(run)
    if said := gain_sentence(run.front, known, (validation or {}).get("networks", ())):
        body.append(f"<p><b>{escape(said)}.</b></p>")
    if damages := _damages(run):
        body.append(f'<div class="notes">{"".join(f"<p>{escape(d)}</p>" for d in damages)}</div>')
    body += [
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        f"<h2>The front</h2><p>○ is predicted{marks}, here and everywhere below.</p>",
        page.draw("front", front),
        objectives_plot(run, page),
        references_section(known),
    ]
    if validation and validation["networks"]:
        body += _validation_sections(run, validation, page)
    elif _measurable(run):
        device = str(run.settings["device"])
        command = shlex.join(["phonenas", "validate", str(run.path), "--device", device])
        body.append(
            "<h2>Validated</h2><p>No validation yet. It measures the best networks, compares them "
            "with the prediction and shows the times of their operators: "
            f"<code>{escape(command)}</code></p>"
        )
    body += [drawings_section(run, _model(run)), front_table(run, validation)]
    return [*body, promoted_section(run.path, page), course_section(run, page), _settings(run)]


def _model(run: Loaded) -> LatencyModel | None:
    """The model that predicted; None where it cannot be read, which `_damages` told."""
    try:
        return load_model(run.path / "model.json")
    except PhonenasError:
        return None


def _validation_sections(run: Loaded, validation: dict[str, Any], page: Page) -> list[str]:
    from . import plots

    body = ["<h2>Validated networks</h2>", listed(_NETWORKS, validation["networks"], _block_string)]
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
    body += ["<h2>Predicted against measured</h2>", page.draw("calibration", calibration)]
    body += [_scores(validation), "<h2>Where the milliseconds go</h2>"]
    operators = plots.operator_points(validation)
    if operators:
        whole = {v["id"]: v["measured_ms"] for v in validation["networks"]}
        body.append(page.draw("operators", plots.operator_figure(operators, whole)))
        body.append(
            '<p class="soft">Blocks by the side of their input map. A hatched operator was not '
            "measured alone: the model's regressor predicted it.</p>"
        )
    else:
        body.append("<p>The validation has no times by operator.</p>")
    return [*body, _conditions(validation)]


def _headline(run: Loaded, validation: Mapping[str, Any] | None) -> str:
    target_ms, given = run.front.target_ms, str(run.settings.get("target", ""))
    device = str(run.settings["device"])
    text, estimate = "No target was set.", escape(str(estimate_of(run.settings)))
    if target_ms is not None:
        text = f"The target is <b>{target_ms:.2f} ms</b>"
        text += "." if given == f"{target_ms:g}" else f", given as <b>{escape(given)}</b>."
    networks: list[dict[str, Any]] = [] if validation is None else validation["networks"]
    facts = [(f"{len(run.evaluations()):,}", "networks evaluated by prediction")]
    outside = sum(c.outside for c in run.front)
    facts.append((f"{len(run.front)}", f"of them on the front, {outside} extrapolated"))
    if validation is None or not networks:
        best = max(run.front, key=lambda c: c.top1, default=None)
        done = read_promoted(run.path)
        if n := sum(n.measured_ms is not None for n in done.networks) if done else 0:
            text += f" {n} of its networks were trained in full and measured: see below."
        elif _measurable(run):
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
    ("error", lambda v: f"{v['error']:+.1%}"),
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
)


def _figures(networks: Sequence[Mapping[str, Any]]) -> str:
    """What was measured besides the latency; "" where nothing was."""
    known = [v for v in networks if any(v.get(key) is not None for _, key, _, _ in _FIGURES)]
    if not known:
        return ""
    rows = [
        (v["id"], *(number(v.get(key), form, per) for _, key, form, per in _FIGURES)) for v in known
    ]
    return table(("id", *(title for title, *_ in _FIGURES)), rows) + (
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


def _conditions(validation: Mapping[str, Any]) -> str:
    kind = "good" if validation["verdict"].get("stable") else "bad"
    rows = [(k.replace("_", " "), v) for k, v in validation["conditions"].items()]
    rows.append(("rejected readings", validation.get("rejected", "–")))
    rows.append(("validated at", validation.get("at", "–")))
    text = str(validation["verdict"].get("text", "no verdict was given"))
    return f'<h2>Conditions</h2><p class="{kind}">{escape(text)}</p>' + table((), rows, "words")


def _settings(run: Loaded) -> str:
    s = run.settings
    options: tuple[str, ...] = ("device", "space", "resolution_px", "strategy", "target")
    options += ("evaluations", "seed", "patience", "halving")
    given = [(o.removesuffix("_px"), s[o]) for o in options if s.get(o) not in (None, "")]
    given += [("min-epochs", s["min_epochs"])] if "min_epochs" in s else []
    for option, name in (("time", "time_s"), ("budget", "training_s")):
        given += [(option, f"{s[name]:f}s")] if name in s else []
    for option, name in (("also", "also"), ("limit", "limits")):
        given += [(option, text.split(" (")[0]) for text in s.get(name, ())]
    given += [("chance", s["chance"])] if "chance" in s else []
    given += [*s.get("asked", {}).items(), ("out", run.path)]
    given += [("model", m)] if (m := run.path / "model.json").exists() else []
    given += [("accuracy", "surrogate")] if str(s["accuracy"]).startswith("surrogate-") else []
    given.append(("trust", s.get("trust", 0)))
    given += [("set", f"{name}={value}") for name, value in options_given(s).items()]
    told = estimate_of(s)
    parts = [f"--{o} {shlex.quote(str(v))}" for o, v in given]
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
    rows = [(k.replace("_", " "), "–" if v is None else v) for k, v in s.items() if k != "asked"]
    rows += [("seconds", f"{run.seconds:.1f}"), ("hypervolume", f"{run.front.hypervolume:.4f}")]
    rows += [(name, f"version {version}") for name, version in run.libraries.items()]
    return (
        f"<h2>The search</h2>{again}{table((), rows, 'words')}"
        f"<h2>What {escape(told.quantity)} means here</h2><p>{escape(told.scale)}</p>"
    )
