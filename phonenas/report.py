"""write_report(): a run as one HTML page that opens offline and asks nothing of any server."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .data.files import write_atomic
from .page import Page, number, table
from .report_promoted import promoted_section
from .search.promoted import read_promoted
from .search.run_folder import Loaded, load
from .search.strategy import names
from .search.validation import DOCUMENT
from .space.errors import UnsupportedFormat

__all__ = ["read_validation", "write_report"]

_NUMBERS = ("top1", "predicted_ms", "low_ms", "high_ms", "measured_ms", "spread", "error")
_FLAGS = ("inside", "meets_target", "outside")
_SCALES = {
    "surrogate": "Top-1 after the 16-epoch schedule of Accel-NASBench, not full training; ranks "
    "networks, does not promise ImageNet accuracy."
}
_SCORES = (
    ("n", "networks", "{:.0f}"), ("mape", "mean absolute error (MAPE)", "{:.1%}"),
    ("bias", "bias, + predicts too much", "{:+.1%}"), ("acc5", "within ±5 %", "{:.0%}"),
    ("acc10", "within ±10 %", "{:.0%}"), ("rmse_ms", "RMSE", "{:.3f} ms"),
    ("spearman", "Spearman's ρ", "{:.3f}"), ("kendall_tau", "Kendall's τ", "{:.3f}"),
    ("coverage90", "inside the 90 % interval", "{:.0%}"),
)  # fmt: skip
_MODELS = {"model": "model", "lookup_table": "raw lookup-table sum", "macs": "MACs baseline"}
_YES = {True: '<span class="good">yes</span>', False: '<b class="bad">no</b>', None: "–"}
_LOGGED = 12  # generations shown of a log
_VALIDATED = ("Validated networks", "Predicted against measured", "Where the milliseconds go")


def read_validation(run_dir: Path) -> dict[str, Any] | None:
    """What `phonenas validate` wrote into a run; None where it has not been given yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    from .plots import calibration_points, operator_points

    path = run_dir / "validation.json"
    again = f"Make it anew:  phonenas validate {run_dir} --device ..."
    found = DOCUMENT.read(path, again)
    if found is None:
        return None
    with DOCUMENT.checking(path, again):
        for v in found["networks"]:
            v |= {"id": int(v["id"]), "block_args": str(v["block_args"])}
            v |= {name: float(v[name]) for name in _NUMBERS}
            v |= {k: _flag(v.get(k)) for k in _FLAGS}
        for name in ("verdict", "conditions", "score", "model"):
            found[name] = dict(found.get(name) or {})
        found["model"]["scores"] = dict(found["model"].get("scores") or {})
        for name in ("rounds", "best"):
            found[name] = [dict(row) for row in found.get(name) or ()]
        for row in found["rounds"]:
            row |= {"round": int(row["round"]), "networks": list(row["networks"])}
            row |= {k: dict(row.get(k) or {}) for k in ("score", "changed")}
        for v in found["best"]:
            v |= {"round": int(v["round"]), "name": str(v["name"])}
            v |= {k: float(v[k]) for k in ("top1", "predicted_ms", "measured_ms")}
            v["meets_target"] = _flag(v.get("meets_target"))
        calibration_points(found), operator_points(found)
    return found


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write a run as one HTML page: front, validation, conditions, settings.

    Args:
        run_dir: Folder of a finished run; what is not validated yet is said in the page.
        out: The file; `report.html` in the run by default.
    Returns:
        The file written; it was written whole or not at all.
    Raises:
        UnknownName: There is no run.
        UnsupportedFormat: The run or its validation is unfinished, damaged or of another version.
        StoreError: The file cannot be written.
    """
    run = load(run_dir)
    found = read_validation(run_dir)
    known = {c.id: c.block_args for c in run.front}
    if found and any(known.get(v["id"]) != v["block_args"] for v in found["networks"]):
        raise UnsupportedFormat(
            f"{run_dir / 'validation.json'} names networks that the front of this run does not "
            f"hold. Validate it anew:  phonenas validate {run_dir} --device ..."
        )
    page = Page(f"phonenas: networks for {run.settings['device']}")
    text = page.html(_sections(run, found, page), _origin(run, found))
    return write_atomic(run_dir / "report.html" if out is None else out, text)


def _origin(run: Loaded, found: Mapping[str, Any] | None) -> str:
    """Where the times come from: anything but measured, if either promise or validation does."""
    told = [run.model.get("conditions", {}), (found or {}).get("conditions", {})]
    return next(
        (o for c in told if (o := str(c.get("origin", "measured"))) != "measured"), "measured"
    )


def _sections(run: Loaded, found: dict[str, Any] | None, page: Page) -> list[str]:
    from . import plots as ink

    points = ink.front_points(run, found)
    front = ink.front_figure(points, run.front.target_ms, len(run.numbers()))
    body = [
        _headline(run, found),
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        "<h2>The front</h2><p>○ is predicted, ● is measured, here and everywhere below.</p>"
        + page.draw("front", front),
    ]
    if found is None or not found["networks"]:
        device = shlex.quote(str(run.settings["device"]))
        command = f"phonenas validate {shlex.quote(str(run.path))} --device {device}"
        body.append("<h2>Validated</h2><p>No validation yet: validated networks, how far the prediction "
                    f"was off and the operators' times come from <code>{escape(command)}</code></p>")  # fmt: skip
        return [*body, promoted_section(run.path, page), _log(run), _settings(run)]
    body += [f"<h2>{_VALIDATED[0]}</h2>", _networks(found)]
    if found["rounds"]:
        body.append(_rounds(found, run.path))
    body.append(f"<h2>{_VALIDATED[1]}</h2>")
    body += [page.draw("calibration", ink.calibration_figure(ink.calibration_points(found)))]
    body += [_scores(found), f"<h2>{_VALIDATED[2]}</h2>"]
    operators = ink.operator_points(found)
    if operators:
        whole = {v["id"]: v["measured_ms"] for v in found["networks"]}
        body.append(page.draw("operators", ink.operator_figure(operators, whole)))
        body.append('<p class="soft">Blocks by the side of their input map. What is hatched was '
                    "not measured alone: the model's curve filled it in.</p>")  # fmt: skip
    else:
        body.append("<p>The validation does not tell it by operator.</p>")
    body.append(_conditions(found))
    return [*body, promoted_section(run.path, page), _log(run), _settings(run)]


def _headline(run: Loaded, found: Mapping[str, Any] | None) -> str:
    target_ms, given = run.front.target_ms, str(run.settings.get("target", ""))
    device = str(run.settings["device"])
    text = "No target was set."
    if target_ms is not None:
        text = f"The target is <b>{target_ms:.2f} ms</b>"
        text += "." if given == f"{target_ms:g}" else f", given as <b>{escape(given)}</b>."
    networks: list[dict[str, Any]] = [] if found is None else found["networks"]
    facts = [(f"{len(run.numbers()):,}", "networks evaluated by prediction"),
             (f"{len(run.front)}", "of them on the front")]  # fmt: skip
    if found is None or not networks:
        best = max(run.front, key=lambda c: c.top1, default=None)
        done = read_promoted(run.path)
        told = [n for n in done.networks if n.measured_ms is not None] if done else []
        text += (f" {len(told)} of its networks were trained in full and measured: see below."
                 if told else " Nothing has been measured yet.")  # fmt: skip
        if best is not None:
            text += (f" By prediction the most accurate is <b>network {best.id}</b>: "
                     f"○ {best.latency_ms:.2f} ms ({best.low_ms:.2f} to {best.high_ms:.2f}), "
                     f"top-1 estimate {best.top1:.1%}.")  # fmt: skip
    else:
        n = len(networks)
        good = [v for v in networks if v["meets_target"] is not False]
        if not good:
            text += f" <b>None of the {n} validated networks meets it as measured.</b> The fastest"
        else:
            text += " Of those that meet it as measured, " if target_ms is not None else " Of all, "
            text += "the most accurate"
        v = max(good or networks, key=lambda v: v["top1"] if good else -v["measured_ms"])
        text += (f" is <b>network {v['id']}</b>: promised ○ {v['predicted_ms']:.2f} ms "
                 f"({v['low_ms']:.2f} to {v['high_ms']:.2f}), <b>measured ● "
                 f"{v['measured_ms']:.2f} ms</b>, top-1 estimate {v['top1']:.1%}.")  # fmt: skip
        if target_ms is not None:
            facts.append((f"{len(good)} of {n}", "validated meet the target as measured"))
        inside = sum(bool(v["inside"]) for v in networks)
        facts.append((f"{inside} of {n}", "measured inside their 90 % interval"))
        if found.get("device", device) != device:
            text += f" <b>They were measured on {escape(str(found['device']))}.</b>"
    tiles = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in facts)
    what = "" if found is None else str(found["conditions"].get("model", ""))
    title = f'<h1>Networks for {escape(device)}</h1><p class="soft">{escape(what)}</p>'
    return f'{title}<p class="lead">{text}</p><ul class="facts">{tiles}</ul>'


def _networks(found: Mapping[str, Any]) -> str:
    lines = ""
    for v in found["networks"]:
        top1 = f"{v['top1']:.1%} ± {number(v.get('top1_error'), '{:.1%}')}"
        cells = (
            str(v["id"]), top1 + (" outside" if v["outside"] else ""),
            f"○ {v['predicted_ms']:.2f} ({v['low_ms']:.2f} to {v['high_ms']:.2f})",
            f"● {v['measured_ms']:.2f} ± {v['spread']:.1%}", f"{v['error']:+.1%}",
            _YES[v["inside"]], _YES[v["meets_target"]],
            number(v.get("macs"), "{:.0f}", 1e6), number(v.get("params"), "{:.2f}", 1e6),
        )  # fmt: skip
        row = "".join(f"<td>{c}</td>" for c in cells)
        code = f'<td class="code" colspan="9"><code>{escape(v["block_args"])}</code></td>'
        lines += f'<tr class="open">{row}</tr><tr>{code}</tr>'
    titles = ("id", "○ top-1 estimate", "predicted, ms (90 % interval)", "measured, ms", "error",
              "inside", "meets target", "MACs, M", "params, M")  # fmt: skip
    top = "".join(f"<th>{t}</th>" for t in titles)
    return (
        f'<div class="box"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody>'
        '</table></div><p class="soft">± after top-1 is one standard error, after a measurement '
        "how far its rounds stand apart. Error is predicted against measured. <b>outside</b>: the "
        "network lies beyond what the accuracy estimator has learned from, so that its top-1 is "
        "an extrapolation. A click on a block string selects it whole.</p>"
    )


def _rounds(found: Mapping[str, Any], path: Path) -> str:
    """What each round of measuring, fitting and ranking anew gave, and the best of all."""
    rows = []
    for r in found["rounds"]:
        c = r["changed"]
        ranked = (
            "the search's own"
            if not c
            else f"{c.get('joined', '–')} joined, {c.get('left', '–')} left"
        )
        meet = "–" if r.get("meet") is None else f"{r['meet']} of {len(r['networks'])}"
        rows.append((
            f"round {r['round']}", ranked, number(c.get("shift"), "{:+.1%}"), str(len(r["networks"])),
            number(r.get("expected_to_meet"), "{:.1f}"), meet, number(r["score"].get("mape"), "{:.1%}"),
        ))  # fmt: skip
    titles = ("", "its front", "model moved", "measured", "expected to meet the target", "meet it",
              "mean absolute error")  # fmt: skip
    lines = ""
    for v in found["best"]:
        cells = (f"<code>{escape(v['name'])}</code>", f"{v['round']}", f"○ {v['top1']:.1%}",
                 f"○ {v['predicted_ms']:.2f}", f"● {v['measured_ms']:.2f}",
                 _YES[v["meets_target"]])  # fmt: skip
        lines += "<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
    heads = ("the best of all rounds", "round", "top-1 estimate", "predicted, ms", "measured, ms",
             "meets target")  # fmt: skip
    top = "".join(f"<th>{t}</th>" for t in heads)
    best = (
        f'<div class="box"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )
    stopped = (
        f"<p>No further round: {escape(str(found['stopped']).rstrip('.'))}.</p>"
        if found.get("stopped")
        else ""
    )
    return (
        f"<h2>Rounds</h2>{table(titles, rows)}{stopped}{best if lines else ''}"
        '<p class="soft">After a round the model was fitted on what was measured, and every network that the '
        "search had evaluated was ranked anew. How far the model moved is what it still erred on the networks "
        "measured, on average. The table above holds what was measured of the search's own front; each further "
        f"round has a report of its own:  <code>phonenas report {escape(shlex.quote(str(path)))}/round2</code></p>"
    )


def _log(run: Loaded) -> str:
    """Generation by generation, some of them; "" for a run that has kept no log."""
    log = run.log()
    if not len(log):
        return ""
    step = max(1, -(-len(log) // _LOGGED))
    rows = [
        (f"{n:,.0f}", f"{repeats:,.0f}", "–" if hv != hv else f"{hv:#.4g}", f"○ {ms:.2f}", f"○ {top1:.1%}",
         f"{seconds:.1f}")
        for n, repeats, hv, ms, top1, seconds in [*log[:-1:step].tolist(), log[-1].tolist()]
    ]  # fmt: skip
    titles = ("evaluations", "known already", "hypervolume", "fastest, ms", "best top-1", "seconds")
    return (
        f'<h2>How it went</h2>{table(titles, rows)}<p class="soft">{len(rows)} of {len(log):,} '
        "generations; <code>log.csv</code> in the run's folder holds all. Fastest and best are of all "
        "networks seen, whether they meet the target or not.</p>"
    )


def _scores(found: Mapping[str, Any]) -> str:
    model = found["model"]
    columns = [("this validation", found["score"])]
    columns += [(title, model["scores"].get(name) or {}) for name, title in _MODELS.items()]
    rows = [
        (title, *(number(column.get(name), form) for _, column in columns))
        for name, title, form in _SCORES
    ]
    taught = f"{model.get('operators', '–')} operators and {model.get('networks', '–')} networks"
    return table(("", *(title for title, _ in columns)), rows) + (
        f'<p class="soft">The model was taught by {escape(taught)}, measured until '
        f"{escape(str(model.get('date', '–'))[:10])}. The last three columns are over the same "
        "networks, none of which took part in the fit that predicts it.</p>"
    )


def _conditions(found: Mapping[str, Any]) -> str:
    kind = "good" if found["verdict"].get("stable") else "bad"
    rows = [(k.replace("_", " "), v) for k, v in found["conditions"].items()]
    rows.append(("rejected readings", found.get("rejected", "–")))
    rows.append(("validated at", found.get("at", "–")))
    text = escape(str(found["verdict"].get("text", "no verdict was given")))
    return f'<h2>Conditions</h2><p class="{kind}">{text}</p>' + table((), rows, "words")


def _settings(run: Loaded) -> str:
    s = run.settings
    options = {"device": "device", "space": "space", "resolution": "resolution_px",
               "strategy": "strategy", "target": "target", "evaluations": "evaluations",
               "seed": "seed"}  # fmt: skip
    given = [(o, s[name]) for o, name in options.items() if s.get(name) not in (None, "")]
    for option, name in (("also", "also"), ("limit", "limits")):
        given += [(option, text.split(" (")[0]) for text in s.get(name, ())]
    given += [("chance", s["chance"])] if "chance" in s else []
    given += list(s.get("asked", {}).items())
    words = [(f"--{o}", str(v)) for o, v in [*given, ("out", run.path)]]
    words += [("--soft", "")] if s.get("soft") else []
    command = " ".join(
        f'<span class="nobr">{option} {escape(shlex.quote(value)) if value else ""}</span>'
        for option, value in words
    )
    again = (
        f'<p>The same search again, with the same model:</p><div class="box command"><code>phonenas search {command}'
        "</code></div>"
        if s.get("strategy") in names()
        else "<p>Not a search of its own: all that another run judged, ranked again after measuring.</p>"
    )
    estimator = str(s.get("accuracy", ""))
    scale = str(s.get("scale") or "") or _SCALES.get(
        estimator.split("-")[0], f"Top-1 on the scale of {estimator}."
    )
    rows = [(k.replace("_", " "), "–" if v is None else v) for k, v in s.items() if k != "asked"]
    rows += [("seconds", f"{run.seconds:.1f}"), ("hypervolume", f"{run.front.hypervolume:.4f}")]
    rows += [(name, f"version {version}") for name, version in run.libraries.items()]
    return (
        f"<h2>The search</h2>{again}{table((), rows, 'words')}"
        f"<h2>What top-1 means here</h2><p>{escape(scale)}</p>"
    )
