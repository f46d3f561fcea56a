"""write_report(): a run as one HTML page that opens offline and asks nothing of any server."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .data.files import write_atomic
from .search.run_folder import Loaded, load
from .space.errors import StoreError, UnsupportedFormat

__all__ = ["read_validation", "write_report"]

FORMAT, VERSION = "phonenas-validation", 1
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
_VALIDATED = ("Validated networks", "Predicted against measured", "Where the milliseconds go")
# The policy has the browser itself refuse whatever would leave the page.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ --paper: #fff; --ink: #1b1f24; --soft: #59616b; --line: #dfe3e8; --tint: #f5f7f9;
  --good: #00714f; --bad: #a84300; color-scheme: light dark }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --paper: #15181c; --ink: #e6e9ec;
  --soft: #a2abb5; --line: #363c44; --tint: #1e2227; --good: #45c79b; --bad: #ff9b5e }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem }}
h2 {{ font-size: 1.2rem; margin: 2.6rem 0 .5rem; break-after: avoid }}
p {{ margin: .5rem 0; max-width: 46rem }} .lead {{ font-size: 1.1rem }}
.soft, figcaption, .facts li {{ color: var(--soft) }} .good {{ color: var(--good) }}
.soft, figcaption, .facts li, table {{ font-size: .88rem }} .bad {{ color: var(--bad) }}
.facts {{ display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none }}
.facts li, .box {{ border: 1px solid var(--line); border-radius: .5rem }}
.facts li {{ flex: 1 1 9rem; background: var(--tint); padding: .6rem .8rem }}
.facts b {{ display: block; font-size: 1.25rem; color: var(--ink) }}
figure {{ margin: .5rem 0; break-inside: avoid }} .box {{ overflow-x: auto; margin: .7rem 0 }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }}
td, .nobr {{ white-space: nowrap }} thead th {{ background: var(--tint); vertical-align: bottom }}
tr.open > td, tbody tr:last-child > * {{ border-bottom: 0 }} .command {{ padding: .6rem .7rem }}
tr > :first-child, .words td {{ text-align: left }} .words th {{ vertical-align: top }}
.words td, td.code {{ white-space: normal; overflow-wrap: anywhere; min-width: 12rem }}
td.code {{ padding-top: 0 }} .plot svg text {{ fill: var(--ink) !important }}
code {{ font: .82rem/1.5 ui-monospace, Menlo, Consolas, monospace; user-select: all }}
td.code code {{ display: block; position: sticky; left: .7rem; max-width: calc(100vw - 3.6rem) }}
.plot .hoverlayer text {{ fill: #1b1f24 !important }}
@media (max-width: 32rem) {{ th, td {{ padding: .35rem .45rem }} }}
@media print {{ .box {{ overflow: visible }} td, th {{ white-space: normal; padding: .3rem }}
  body {{ font-size: .8rem; max-width: none }} }}
</style></head><body>
{body}
<script>{plotly}</script>
<script>
const plots = {plots};
// A finger that scrolls the page must not zoom a plot.
const mouse = matchMedia("(hover: hover) and (pointer: fine)").matches;
const bar = {{ responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] }};
for (const [id, plot] of Object.entries(plots)) {{
  if (!mouse) plot.layout.dragmode = false;
  if (innerWidth < 600) plot.layout.height += 20 * plot.data.length;  // the legend's rows
  Plotly.newPlot(id, plot.data, plot.layout, bar);
}}
const wide = width => Object.keys(plots).forEach(id => Plotly.relayout(id, width));
addEventListener("beforeprint", () => wide({{ width: 660 }}));
addEventListener("afterprint", () => wide({{ width: null, autosize: true }}));
</script></body></html>
"""


def read_validation(run_dir: Path) -> dict[str, Any] | None:
    """What `phonenas validate` wrote into a run; None where it has not been given yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    from .plots import calibration_points, operator_points

    path = run_dir / "validation.json"
    again = f"Make it anew:  phonenas validate {run_dir} --device ..."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {again}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UnsupportedFormat(f"{path} is no validation of phonenas. {again}")
    if found.get("version") != VERSION:
        raise UnsupportedFormat(
            f"{path} has version {found.get('version')}; this phonenas reads version {VERSION}. "
            + again
        )
    try:
        for v in found["networks"]:
            v |= {"id": int(v["id"]), "block_args": str(v["block_args"])}
            v |= {name: float(v[name]) for name in _NUMBERS}
            v |= {k: v.get(k) if v.get(k) in (True, False) else None for k in _FLAGS}
        for name in ("verdict", "conditions", "score", "model"):
            found[name] = dict(found.get(name) or {})
        found["model"]["scores"] = dict(found["model"].get("scores") or {})
        calibration_points(found), operator_points(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__} {error}"
        raise UnsupportedFormat(f"{path} is damaged: {what}. {again}") from error
    return found


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
    from plotly.offline import get_plotlyjs

    run = load(run_dir)
    found = read_validation(run_dir)
    known = {c.id: c.block_args for c in run.front}
    if found and any(known.get(v["id"]) != v["block_args"] for v in found["networks"]):
        raise UnsupportedFormat(
            f"{run_dir / 'validation.json'} names networks that the front of this run does not "
            f"hold. Validate it anew:  phonenas validate {run_dir} --device ..."
        )
    sections, plots = _sections(run, found)
    body, drawn = "\n".join(sections), json.dumps(plots).replace("<", "\\u003c")
    if (origin := _origin(run, found)) != "measured":
        # What stands as code are the user's own words.
        parts = re.split(r"(<code.*?</code>)", body, flags=re.S)
        parts[::2] = [re.sub(r"\bmeasured\b", origin, t).replace("●", "◌") for t in parts[::2]]
        body, drawn = "".join(parts), re.sub(r"\bmeasured\b", origin, drawn)
        body = (
            f"<p class=command><b>{escape(origin.upper())}.</b> No device was measured for the times on "
            f"this page.</p>\n{body}"
        )
    page = _PAGE.format(
        title=escape(f"phonenas: networks for {run.settings['device']}"),
        body=body,
        plotly=get_plotlyjs(),
        plots=drawn,
    )
    return write_atomic(run_dir / "report.html" if out is None else out, page)


def _origin(run: Loaded, found: Mapping[str, Any] | None) -> str:
    """Where the times come from: anything but measured, if either promise or validation does."""
    told = [run.model.get("conditions", {}), (found or {}).get("conditions", {})]
    return next(
        (o for c in told if (o := str(c.get("origin", "measured"))) != "measured"), "measured"
    )


def _sections(run: Loaded, found: dict[str, Any] | None) -> tuple[list[str], dict[str, Any]]:
    from . import plots as ink

    drawn: dict[str, Any] = {}

    def draw(name: str, figure: Any) -> str:
        # The title leaves the drawing: as the page's own text it wraps on a narrow screen.
        drawn[name] = json.loads(figure.to_json())
        title = drawn[name]["layout"].pop("title")["text"]
        return (
            f'<figure><figcaption>{escape(title)}</figcaption><div id="{name}" class="plot" '
            f'role="img" aria-label="{escape(title)}"></div></figure>'
        )

    points = ink.front_points(run, found)
    front = ink.front_figure(points, run.front.target_ms, len(run.numbers()))
    body = [
        _headline(run, found),
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        "<h2>The front</h2><p>○ is predicted, ● is measured, here and everywhere below.</p>"
        + draw("front", front),
    ]
    if found is None or not found["networks"]:
        device = shlex.quote(str(run.settings["device"]))
        command = f"phonenas validate {shlex.quote(str(run.path))} --device {device}"
        for title in _VALIDATED:
            body.append(f"<h2>{title}</h2><p>Nothing has been measured yet. Do so with")
            body.append(f"<code>{escape(command)}</code></p>")
        return [*body, _settings(run)], drawn
    body += [f"<h2>{_VALIDATED[0]}</h2>", _networks(found), f"<h2>{_VALIDATED[1]}</h2>"]
    body += [draw("calibration", ink.calibration_figure(ink.calibration_points(found)))]
    body += [_scores(found), f"<h2>{_VALIDATED[2]}</h2>"]
    operators = ink.operator_points(found)
    if operators:
        whole = {v["id"]: v["measured_ms"] for v in found["networks"]}
        body.append(draw("operators", ink.operator_figure(operators, whole)))
        body.append('<p class="soft">Blocks by the side of their input map. What is hatched was '
                    "not measured alone: the model's curve filled it in.</p>")  # fmt: skip
    else:
        body.append("<p>The validation does not tell it by operator.</p>")
    body.append(_conditions(found))
    return [*body, _settings(run)], drawn


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
        text += " Nothing has been measured yet."
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


def _number(value: Any, form: str, per: float = 1) -> str:
    return form.format(value / per) if isinstance(value, int | float) else "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """A table in a box of its own; cells are escaped."""
    lines = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(c))}</td>" for c in rest)
        lines += f"<tr><th>{escape(str(first))}</th>{cells}</tr>"
    titles = "".join(f"<th>{escape(t)}</th>" for t in head)
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f'<div class="box"><table class="{kind}">{top}<tbody>{lines}</tbody></table></div>'


def _networks(found: Mapping[str, Any]) -> str:
    words = {True: '<span class="good">yes</span>', False: '<b class="bad">no</b>', None: "–"}
    lines = ""
    for v in found["networks"]:
        top1 = f"{v['top1']:.1%} ± {_number(v.get('top1_error'), '{:.1%}')}"
        cells = (
            str(v["id"]), top1 + (" outside" if v["outside"] else ""),
            f"○ {v['predicted_ms']:.2f} ({v['low_ms']:.2f} to {v['high_ms']:.2f})",
            f"● {v['measured_ms']:.2f} ± {v['spread']:.1%}", f"{v['error']:+.1%}",
            words[v["inside"]], words[v["meets_target"]],
            _number(v.get("macs"), "{:.0f}", 1e6), _number(v.get("params"), "{:.2f}", 1e6),
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


def _scores(found: Mapping[str, Any]) -> str:
    model = found["model"]
    columns = [("this validation", found["score"])]
    columns += [(title, model["scores"].get(name) or {}) for name, title in _MODELS.items()]
    rows = [
        (title, *(_number(column.get(name), form) for _, column in columns))
        for name, title, form in _SCORES
    ]
    taught = f"{model.get('operators', '–')} operators and {model.get('networks', '–')} networks"
    return _table(("", *(title for title, _ in columns)), rows) + (
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
    return f'<h2>Conditions</h2><p class="{kind}">{text}</p>' + _table((), rows, "words")


def _settings(run: Loaded) -> str:
    s = run.settings
    options = {"device": "device", "space": "space", "resolution": "resolution_px",
               "strategy": "strategy", "target": "target", "evaluations": "evaluations",
               "seed": "seed"}  # fmt: skip
    given = {o: s[name] for o, name in options.items() if s.get(name) not in (None, "")}
    command = " ".join(
        f'<span class="nobr">--{option} {escape(shlex.quote(str(value)))}</span>'
        for option, value in (given | {"out": run.path}).items()
    )
    estimator = str(s.get("accuracy", ""))
    scale = _SCALES.get(estimator.split("-")[0], f"Top-1 on the scale of {estimator}.")
    rows = [(k.replace("_", " "), "–" if v is None else v) for k, v in s.items()]
    rows += [("seconds", f"{run.seconds:.1f}"), ("hypervolume", f"{run.front.hypervolume:.4f}")]
    rows += [(name, f"version {version}") for name, version in run.libraries.items()]
    return (
        f'<h2>The search</h2><p>The same search again:</p><div class="box command">'
        f"<code>phonenas search {command}</code></div>{_table((), rows, 'words')}"
        f"<h2>What top-1 means here</h2><p>{escape(scale)}</p>"
    )
