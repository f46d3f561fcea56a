"""The report's section on promoted networks: what was trained in full, and the front of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from phonenas.data.documents import strict
from phonenas.search.exported_file import FileLatency
from phonenas.search.promotion.result import Promoted, PromotedNetwork, read_promoted
from phonenas.search.training.export.quantised import QuantisedModel
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32

from .page import TARGET, Page, listed, number, table

__all__ = ["exported_files", "promoted_figure", "promoted_section"]


def promoted_figure(result: Promoted) -> Any:
    """Trained top-1 against latency: measured where it is, else predicted."""
    from . import plots

    traces = []
    for measured in (False, True):
        for on_front in (False, True):
            networks = [
                n
                for n in result.shipping
                if (n.on_front, n.measured_ms is not None) == (on_front, measured)
            ]
            if not networks:
                continue
            at = [n.latency_ms for n in networks]
            colour, mark = (plots.MEASURED, "●") if measured else (plots.PREDICTED, "○")
            symbol = ("diamond" if on_front else "circle") + ("" if measured else "-open")
            errors = [100 * n.shipped[1] for n in networks]
            bar = {"type": "data", "thickness": 1, "width": 0, "color": colour, "array": errors}
            traces.append(
                plots.scatter(
                    f"{'front' if on_front else 'beaten'}, "
                    f"{'measured' if measured else 'predicted'} latency",
                    at,
                    [100 * n.shipped[0] for n in networks],
                    {"color": colour, "size": 11 if on_front else 8, "symbol": symbol},
                    f"network %{{customdata[0]}}<br>{mark} %{{x:.2f}} ms<br>● top-1 %{{y:.1f}} "
                    "± %{customdata[1]:.1f} %",
                    [[n.id, error] for n, error in zip(networks, errors, strict=True)],
                    error_x=plots.error_bars([n.bounds_ms for n in networks], at, colour),
                    error_y=bar,
                )
            )
    traces += plots.target_line(result.target_ms, [100 * n.shipped[0] for n in result.shipping])
    front = sum(n.on_front for n in result.trained)
    trained = counted(len(result.shipping), "network")
    title = f"{trained} trained in full, {front} of them beaten by none"
    of = "" if result.precision == "float32" else f" in {result.precision}"
    return plots.figure_of(traces, title, "latency, ms", f"● top-1 after training{of}, %", 420)


def promoted_section(run_dir: Path, page: Page) -> str:
    """HTML of the section; "" for a run of which nothing was promoted.

    Raises:
        UnsupportedFormat, StoreError: As `read_promoted`.
    """
    result = read_promoted(run_dir)
    if result is None or not result.networks:
        return ""
    body = ["<h2>Trained in full</h2>", _lead(result)]
    if result.trained:
        body.append(page.draw("promoted", promoted_figure(result)))
    small = result.precision != FLOAT32 and any(n.in_precision for n in result.trained)
    own = [(f"● in {result.precision}", _shipped)] if small else []
    columns = (*_COLUMNS[:3], *own, *_COLUMNS[3:])
    body.append(listed(columns, result.networks, _below))
    files = exported_files([(n.id, n.file) for n in result.networks if n.file])
    quantised = [(n.id, q) for n in result.networks for q in n.quantised]
    return "".join([*body, files, _quantised(quantised), _fine_tuned(result), _notes(result)])


def _fine_tuned(result: Promoted) -> str:
    """What the fine-tuning of each network for int8 came to; "" where none was asked for."""
    tuned = [(n, n.finetuned) for n in result.networks if n.finetuned is not None]
    lines = [f"{n.id}: {line}" for n, found in tuned for line in found.lines(n.quantised)]
    if not lines:
        return ""
    return (
        "<h3>Fine-tuned for int8</h3><ul>"
        + "".join(f"<li>{escape(x)}</li>" for x in lines)
        + ('</ul><p class="soft">± is one standard error.</p>')
    )


def _quantised(files: Sequence[tuple[int, QuantisedModel]]) -> str:
    """Tables of quantised files beside those in float32, one for each precision; "" where there
    are none."""
    kinds = dict.fromkeys(q.precision for _, q in files)
    return "".join(_in_precision(of, [f for f in files if f[1].precision == of]) for of in kinds)


def _in_precision(of: str, files: Sequence[tuple[int, QuantisedModel]]) -> str:
    """A table of the files in one precision, at least one."""
    rows = [
        (
            id_,
            q.file,
            f"{q.float_top1:.2%}",
            *(
                ("–", f"not evaluated: {q.not_run}", "–")
                if q.not_run
                else (
                    f"{q.top1:.2%}",
                    f"{q.change:+z.2%} ± {q.change_error:.2%}",
                    f"{q.agreeing:.2%}",
                )
            ),
            f"{q.float_size / 1e6:.2f}",
            f"{q.size / 1e6:.2f}",
        )
        for id_, q in files
    ]
    on, images = (max(getattr(q, n) for _, q in files) for n in ("calibrated_on", "images"))
    head = ("id", "file", "● top-1 in float32", f"● top-1 in {of}", "change", "decisions equal")
    calibrated = f", calibrated on {counted(on, 'image')}" if on else ""
    ran = ""
    if images:
        ran = (
            f"; each file run by its runtime on {counted(images, 'test image')}. ± after the "
            "change is one standard error"
        )
    return table((*head, "float32, MB", f"{of}, MB"), rows) + (
        f'<p class="soft">Quantised after training{calibrated}{ran}.</p>'
    )


def exported_files(files: Sequence[tuple[int, FileLatency | Mapping[str, Any] | None]]) -> str:
    """A table of exported files beside their architectures; "" where none was exported.

    Args:
        files: The id of each network and its file, as it is or as a document has it.
    """
    known = [
        (id_, f if isinstance(f, FileLatency) else strict(f, FileLatency)) for id_, f in files if f
    ]
    notes = "".join(
        f'<p class="{"soft" if f.as_expected else "bad"}">Network {id_}: {escape(str(f))}.</p>'
        for id_, f in known
        if str(f)
    )
    every = [(id_, file) for id_, f in known for file in (f, *f.also)]
    measured = [(id_, f) for id_, f in every if f.measured_ms is not None]
    if not measured:
        return notes
    said = {None: "unknown", True: "differ", False: "agree"}

    def times(f: FileLatency) -> list[str]:
        pairs = ((f.measured_ms, f.spread), (f.random_ms, f.random_spread))
        return ["–" if ms is None else f"● {ms:.2f} ± {number(bar, '{:.1%}')}" for ms, bar in pairs]

    rows = [
        (id_, f.file, f.sha256[:12], *times(f), f.precision or said[f.differs])
        for id_, f in measured
    ]
    head = ("id", "exported file", "sha256", "the file, ms", "random weights, ms", "both")
    return (
        table(head, rows)
        + notes
        + '<p class="soft">The exported file, measured in one job with the same architecture with '
        "random weights. They differ where the two 90 % intervals lie apart.</p>"
    )


def _lead(result: Promoted) -> str:
    train, test = result.images.get("train", {}), result.images.get("test", {})
    recipe, epochs = result.recipe, result.recipe.get("epochs")
    text = (
        f"{len(result.trained)} of {len(result.networks)} networks were trained for "
        f"{number(epochs, '{:,.0f}')} epoch{'' if epochs == 1 else 's'} "
        f"({escape(str(recipe.get('name', '')))}) on "
        f"{number(train.get('images'), '{:,.0f}')} images and evaluated on "
        f"{number(test.get('images'), '{:,.0f}')}."
    )
    if result.kendall_tau is not None:
        text += (
            f" Kendall's τ between estimated and trained top-1 is <b>{result.kendall_tau:.2f}</b> "
            f"(n = {len(result.shipping)})."
        )
    if result.score is not None:
        text += (
            f" The latency model's mean error on them is {result.score.mape:.1%} "
            f"(n = {result.score.n})."
        )
    return f"<p>{text}</p>"


def _measured(n: PromotedNetwork) -> str:
    if n.measured_ms is None:
        return "–"
    return f"● {n.measured_ms:.2f} ± {number(n.spread, '{:.1%}')}"


def _trained(n: PromotedNetwork) -> str:
    return "–" if n.top1 is None else f"{n.top1:.1%} ± {n.top1_error or 0:.1%}"


def _shipped(n: PromotedNetwork) -> str:
    if n.top1 is None or not n.in_precision:
        return "–"
    return f"{n.shipped[0]:.1%} ± {n.shipped[1]:.1%}"


_COLUMNS: tuple[tuple[str, Callable[[PromotedNetwork], str]], ...] = (
    ("id", lambda n: str(n.id)),
    ("○ top-1 estimate", lambda n: f"{n.top1_estimated:.1%} ± {n.estimated_error:.1%}"),
    ("● top-1 trained", _trained),
    ("● top-5", lambda n: number(n.top5, "{:.1%}")),
    ("predicted, ms", lambda n: f"○ {n.predicted_ms:.2f} ({n.low_ms:.2f} to {n.high_ms:.2f})"),
    ("measured, ms", _measured),
    ("target", lambda n: TARGET[n.verdict]),
    ("front", lambda n: "front" if n.on_front else "–"),
    ("MACs, M", lambda n: number(n.macs, "{:.0f}", 1e6)),
    ("params, M", lambda n: number(n.params, "{:.2f}", 1e6)),
)


def _below(n: PromotedNetwork) -> str:
    why = n.failed or n.export_failed
    note = f' <span class="bad">{escape(why)}</span>' if why else ""
    return f"<code>{escape(n.block_args)}</code>{note}"


def _notes(result: Promoted) -> str:
    text = [
        "± after a top-1 is one standard error: of the estimator, and of a share of as many "
        "images. An estimate and a trained top-1 are on two scales; their order is what compares."
    ]
    if any(not n.predicted_as_trained for n in result.trained):
        text.append("Predicted latencies are of the networks with the classes of the search.")
    if result.verdict is not None:
        text.append(escape(result.verdict.text.rstrip(".")) + ".")
    return f'<p class="soft">{" ".join(text)}</p>'
