"""How results are printed: tables, scores, and the notes below them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.naming import counted
from phonenas.space.precision import from_front

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from phonenas.data import Conditions, MeasurementStore
    from phonenas.latency_model import LatencyModel, Score
    from phonenas.latency_model.additive.times import Network
    from phonenas.search import Candidate, Devices, Searched
    from phonenas.search.accuracy import AccuracyEstimator
    from phonenas.search.exported_file import FileLatency

__all__ = [
    "ANY",
    "command_line",
    "completed",
    "shown_db",
    "FIGURES",
    "MARKS",
    "basis",
    "explained",
    "figures_table",
    "files_lines",
    "latency_cells",
    "legend",
    "origin_note",
    "predicted_row",
    "rejection_table",
    "rejections",
    "score_table",
    "search_lines",
    "table",
    "uncalibrated_note",
]

#: Of `search --precision`: the precision is a choice of the search.
ANY = "any"
# The commands whose --device is this computer by default, and all that take --db.
_LOCAL = ("profile", "fit", "check", "predict", "compare", "search", "validate")
_STORED = (*_LOCAL, "promote", "import", "export", "doctor", "serve", "trace", "train")
# A message prints a command behind two spaces or `&&`; it is looked at up to the next one, or the
# end of the line.
_COMMAND = re.compile(
    rf"(?<=  |& )phonenas ({'|'.join(_STORED)})(?![\w-])(.*?)(?=&& phonenas |\n|\Z)"
)


#: Names of `Measurement.figures` in tables.
FIGURES = {"p50_ms": "p50", "p90_ms": "p90", "load_ms": "load", "first_ms": "first inference"}
FIGURES |= {"peak_bytes": "peak memory", "model_bytes": "of the model", "file_bytes": "file"}
FIGURES |= {"energy_mj": "energy"}
_UNITS = {"ms": (1, ".2f", "ms"), "mj": (1, ".2f", "mJ"), "bytes": (1e6, ".1f", "MB")}
_MOST_ROWS = 15
_NUMBER = re.compile(r"[-+±]?\d[\d,.]*")
MARKS = {"○": "predicted", "●": "measured", "◌": "simulated, emulated or imported"}


def legend(text: str) -> str:
    """A line that explains the marks in a text; "" where there are none."""
    used = [f"{sign} {meaning}" for sign, meaning in MARKS.items() if sign in text]
    return f"\n{', '.join(used)}" if used else ""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Rows under a header, aligned."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    # Numbers stand to the right, words to the left.
    right = [all(r[i][:1] in "-+0123456789○●◌" for r in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            c.rjust(w) if is_right else c.ljust(w)
            for c, w, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def figures_table(rows: Sequence[tuple[str, Mapping[str, Any]]], sign: str, title: str) -> str:
    """`Measurement.figures` of networks under each other; "" where nothing is known of any.

    Args:
        rows: The name of each network, and its figures.
        sign: Of what the device gave.
        title: Of the first column.
    """
    if all(figures.get(k) is None for _, figures in rows for k in FIGURES):
        return ""

    def cell(figures: Mapping[str, Any], key: str) -> str:
        if (value := figures.get(key)) is None:
            return "–"
        per, form, unit = _UNITS[key.rpartition("_")[2]]
        return f"{'' if key == 'file_bytes' else f'{sign} '}{value / per:{form}} {unit}"

    keys = [k for k in FIGURES if k != "energy_mj" or any(f.get(k) for _, f in rows)]
    cells = [[name, *(cell(figures, key) for key in keys)] for name, figures in rows]
    return table([title, *(FIGURES[k] for k in keys)], cells)


def files_lines(rows: Sequence[tuple[str, FileLatency]], sign: str, title: str) -> list[str]:
    """Exported files beside their architectures with random weights, and what is to be known.

    Args:
        rows: The name of each network, and its file as it was measured.
        sign: Of what the device gave.
        title: Of the first column.
    """

    def cells(ms: float | None, spread: float | None) -> list[str]:
        bar = "–" if spread is None else f"±{spread:.1%}"
        return ["–", "–"] if ms is None else [f"{sign} {ms:.2f} ms", bar]

    said = {None: "unknown", True: "DIFFER", False: "agree"}
    every = [(name, file) for name, f in rows for file in (f, *f.also)]
    shown = [
        [
            name,
            f.file,
            f.sha256[:12],
            *cells(f.measured_ms, f.spread),
            *cells(f.random_ms, f.random_spread),
            f.precision or said[f.differs],
        ]
        for name, f in every
        if f.measured_ms is not None
    ]
    head = [title, "file", "sha256", "the file", "± (90 %)", "random weights", "± (90 %)", "both"]
    told = [f"{name}: {f}" for name, f in rows if str(f)]
    return [*([table(head, shown)] if shown else []), *told]


def origin_note(conditions: Conditions) -> str:
    """A line for numbers that no real device gave; "" for measured ones."""
    note = conditions.origin_note
    return f"\n{note}" if note else ""


def basis(row: dict[str, Any]) -> str:
    """What a row of `predict` rests on."""
    parts = row["basis"]
    if row["whole_networks"]:
        return "whole networks" if row["covered"] else "whole networks, extrapolated"
    if row["covered"]:
        return f"measured {parts}"
    return f"{parts}, some of them {'extrapolated' if parts == 'kernels' else 'predicted'}"


def predicted_row(
    model: LatencyModel, name: str, network: Any, explain: bool, target_ms: float | None
) -> dict[str, Any]:
    """A row of `phonenas predict` for a network of a latency model."""
    predicted, part = model.predict([network]), model.part(network)
    ms = float(predicted.ms[0])
    row: dict[str, Any] = {
        "network": name,
        "latency_ms": ms,
        "low_ms": float(predicted.low_ms[0]),
        "high_ms": float(predicted.high_ms[0]),
        "interval": 0.9,
        "covered": bool(predicted.covered[0]),
        "precision": part.conditions.precision,
        "calibrated": part.calibrated,
        "origin": part.conditions.origin,
        "extrapolated": part.extrapolated(ms),
        "basis": "operators" if part.by_operators else "kernels",
        "whole_networks": not part.by_operators and part.part_of_kernels is None,
        "notes": list(model.notes(network, ms)),
    }
    if target_ms is not None:
        row["within_target"] = float(predicted.within(target_ms)[0])
    if explain:
        row["operators"] = explained(model, network)
    return row


def explained(model: LatencyModel, architecture: Network) -> list[dict[str, Any]]:
    """Each part of a network in its predicted time."""
    shares = model.explain(architecture)
    whole = sum(e.ms for e in shares)
    return [
        {
            "key": "(constant)" if e.operator is None else e.operator.key,
            "ms": e.ms,
            "alone_ms": e.alone_ms,
            "alone_low_ms": e.low_ms,
            "alone_high_ms": e.high_ms,
            "share": e.ms / whole,
            "measured": e.measured,
            **({"node": e.node} if e.node else {}),
        }
        for e in shares
    ]


def uncalibrated_note(model: LatencyModel) -> str:
    """A line for a model that no whole network calibrated; "" for others."""
    if model.calibrated:
        return ""
    return (
        f"\nUNCALIBRATED: sums of the operators of {model.device}, because fewer than ten whole "
        "networks are measured. A whole network may take up to 1.8 times as long. Use the sums to "
        "rank networks, not as times"
    )


def score_table(scores: dict[str, Score]) -> str:
    """Scores beside their baselines."""
    names = {
        "model": "model",
        "lookup_table": "raw table sum",
        "macs": "MACs baseline",
        "relative": "relative times a factor",
    }
    header = ["", "n", "MAPE", "bias", "acc5", "acc10", "RMSE", "Spearman", "Kendall", "90% covers"]
    rows = []
    for key, s in scores.items():
        coverage = "" if s.coverage90 != s.coverage90 else f"{s.coverage90:.0%}"
        rows.append(
            [
                names.get(key, key),
                str(s.n),
                f"{s.mape:.2%}",
                f"{s.bias:+z.2%}",
                f"{s.acc5:.0%}",
                f"{s.acc10:.0%}",
                f"{s.rmse_ms:.3f} ms",
                f"{s.spearman:.4f}",
                f"{s.kendall_tau:.4f}",
                coverage,
            ]
        )
    note = scores["model"].note if "model" in scores else ""
    return table(header, rows) + (f"\n{note}" if note else "")


def rejections(store: MeasurementStore, conditions: Sequence[Conditions]) -> list[dict[str, Any]]:
    """Why readings were rejected: a row a reason, the most frequent first.

    Reasons that differ in their numbers alone count as one; `example` is the latest of them.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in conditions:
        for subject, reason, at in store.rejections(one):
            row = rows.setdefault(_NUMBER.sub("N", reason), {"count": 0, "subjects": set()})
            row["count"] += 1
            row["subjects"].add(subject)
            row |= {"example": reason, "last": at}
    counted = [{**row, "subjects": len(row["subjects"])} for row in rows.values()]
    return sorted(counted, key=lambda row: -row["count"])


def rejection_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `rejections` as a table below a result; "" for none."""
    if not rows:
        return ""
    texts = [[str(r["count"]), str(r["subjects"]), r["last"][:10], r["example"]] for r in rows]
    return "\n\nrejected readings of all jobs:\n" + table(
        ["readings", "subjects", "last", "reason of the last one"], texts
    )


def shown_db(db: str) -> str:
    """A store's location without its password."""
    from phonenas.space.naming import without_password

    return without_password(db)


def command_line(*words: str, db: str = "") -> str:
    """A command to copy, quoted for a shell: `phonenas` with these words and the store."""
    return shlex.join(["phonenas", *words, *(["--db", shown_db(db)] if db else [])])


def completed(
    text: str,
    db: str = "",
    device: str = "",
    model: Path | None = None,
    precision: str | None = None,
) -> str:
    """A message whose printed commands act on the store, device and model of the user's command.

    The modules that raise errors know no store, and not always the device; this adds the options
    that a printed command takes and lacks. They go behind its name, because what follows a command
    in a message is not marked.

    >>> completed("Fit it again:  phonenas fit", "my lab.db", "pixel6")
    "Fit it again:  phonenas fit --db 'my lab.db' --device pixel6"

    Args:
        text: The message.
        db: The user's store; "" adds none.
        device: The user's device, which also replaces the word DEVICE; "" adds none.
        model: The user's model file, which `fit` then writes; None adds none.
        precision: That the user named; None adds none. A network's file is in its own.
    """

    of = "" if precision in (None, ANY) else str(precision)

    def complete(match: re.Match[str]) -> str:
        name, rest = match[1], match[2]
        if device:
            rest = re.sub(r"(?<=--device )DEVICE\b", lambda _: shlex.quote(device), rest)
        try:
            there = shlex.split(rest)
        except ValueError:  # an apostrophe of the sentence behind the command
            there = rest.split()
        options = {
            "--db": shown_db(db) if db else "",
            "--device": device if name in _LOCAL and device != "local" else "",
            "--out": str(model) if name == "fit" and model else "",
            "--precision": of if name in (*_LOCAL, "promote") else "",
        }
        # A file is in its own precision, and kernels are drawn in float32.
        if any(w.endswith((".onnx", ".tflite", ".ort", ".pt2")) or w == "--kernels" for w in there):
            del options["--precision"]
        lacking = [
            word
            for option, value in options.items()
            if value and not any(w == option or w.startswith(f"{option}=") for w in there)
            for word in (option, value)
        ]
        return shlex.join(["phonenas", name, *lacking]) + rest

    return _COMMAND.sub(complete, text)


def search_lines(
    found: Searched, accuracy: AccuracyEstimator, out: Path, devices: Devices | None
) -> list[str]:
    """What a search found, for a terminal.

    Args:
        found: By the search.
        accuracy: That estimated top-1.
        out: Its run folder.
        devices: Several devices, or None.
    """
    from phonenas.search.history import summarise_reasons

    front, note = found.front, accuracy.note
    shown = front.candidates
    more = [n for n in (shown[0].values if shown else ()) if n not in ("macs", "params")]
    if len(shown) > _MOST_ROWS:
        last = _MOST_ROWS - 1
        shown = tuple(shown[round(i * (len(shown) - 1) / last)] for i in range(_MOST_ROWS))
    predicted = ["predicted", "90 % interval"]
    if devices is not None:
        predicted = [f"{d.device}, 90 %" for d in devices.on]
        more = [n for n in more if n not in front.targets]
    header = ["id", *predicted, f"{accuracy.quantity}{'*' * bool(note)}", "", "MACs"]
    chosen = {c.id: from_front(c.block_args)[0] for c in shown} if found.runs else {}
    header += ["parameters", "reward", *(n.replace("_ratio", " / target") for n in more)]
    header += ["precision"] * bool(chosen)
    against = f", target {front.target_ms:.3f} ms" if front.target_ms else ""
    if against and devices is not None:
        words = [f"{d.target.ms:.3f} ms on {d.device}" for d in devices.on if d.target]
        against = f", targets {', '.join(words)}"
    resumed = f", resumed from {found.resumed_from:,}" if found.resumed_from else ""
    lines = [
        f"{counted(found.evaluations, 'network')} evaluated in {found.seconds:.1f} s by "
        f"{found.strategy}"
        f"{against}: {len(front)} on the front, hypervolume {front.hypervolume:.4f}{resumed}",
        "",
        table(
            header,
            [
                [*_search_row(c, more, front.targets), *([chosen[c.id]] if chosen else [])]
                for c in shown
            ],
        ),
    ]
    if found.rungs:
        (least, _), *more_epochs = found.rungs.items()
        further = "".join(f", {n:,} of them for {e}" for e, n in more_epochs)
        lines[0] += f"; trained for {counted(least, 'epoch')}{further}"
        if max(found.rungs) < accuracy.epochs:
            lines.append("warning: no network of these is trained in full; give more --evaluations")
    if len(front) > len(shown):
        rest = command_line("show", str(out))
        lines.append(f"({len(shown)} of {len(front)}, evenly spaced; the best by reward:  {rest})")
    lines.append("")
    if failed := sum(found.failed.values()):
        lines.append(
            f"{failed:,} of {counted(found.evaluations, 'network')} have no accuracy: "
            f"{summarise_reasons(found.failed)}"
        )
    lines += front.extrapolated()
    return [*lines, f"* {note}"] if note else lines


def _search_row(c: Candidate, more: list[str], targets: Iterable[str]) -> list[str]:
    return [
        str(c.id),
        *latency_cells(c, targets),
        f"○ {c.top1:.1%} ±{c.top1_error:.1%}",
        "extrapolated" if c.outside else "",
        f"{c.macs / 1e6:.0f} M",
        f"{c.params / 1e6:.2f} M",
        "" if c.reward is None else f"{c.reward:.4f}",
        *(f"{c.values[n]:.0%}" if n == "chance" else _short(c.values[n]) for n in more),
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def latency_cells(c: Candidate, columns: Iterable[str]) -> list[str]:
    """The predicted latency of a network and its interval; of several devices a cell for each."""
    ends = "{0.low_ms:.2f} to {0.high_ms:.2f}".format
    several = [f"○ {c.values[n]:.2f} ms, {ends(c.intervals[n])}" for n in columns]
    return several or [f"○ {c.latency_ms:.2f} ms", ends(c)]
