"""Commands that bring tables into the store, and write the store as a table: import, export; and
the table of ready phones, whose measurements others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import UnknownName, nearest
from phonenas.space.naming import counted

from .options import Output, OwnResolution, Space, command
from .output import rejection_table, rejections, shown_db, table
from .stores import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phonenas.data.importers import Coverage, Imported
    from phonenas.latency_model.ready import ReadyPhone
    from phonenas.space import SearchSpace

__all__ = ["export", "import_", "ready_phones", "ready_table"]


@command
def import_(
    output: Output,
    db: str,
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="{formats}.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Published tables.")],
    device: Annotated[str, typer.Option(help="Name of the device in the store.")],
    model: Annotated[
        str | None, typer.Option(help="What the device is, for example 'Pixel 1'.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of an edge table, for example 'pixel4|1large|float|mean'."),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option(help="Setting of an edge-networks table, as 'pixel4|1large|float'."),
    ] = None,
    space: Space = "mnasnet",
    resolution: OwnResolution = None,
) -> None:
    """Import latency tables that others published, and list the operators that they lack."""
    from phonenas import space as spaces
    from phonenas.data import importers
    from phonenas.latency_model.outliers import doubtful_unit

    chosen = spaces.get(space, resolution or 224)
    # All files are read before the first is kept: an error in the last one leaves nothing behind.
    read = [
        t
        for path in files
        for t in importers.read(form, path, device, column=column, setting=setting, model=model)
    ]
    if not any(r.kind == "operator" for t in read for r in t.readings):
        output.refuse("space resolution", "is about operators, and these tables hold none")
    with open_store(db, create=True) as store:
        done = importers.import_tables(read, store)
    every = [(r.kind, r.subject, r.latency_ms) for t in read for r in t.readings]
    doubt = doubtful_unit(every)
    coverages = [_coverage(d, chosen, resolution) for d in done]
    best = max((c for c in coverages if c is not None), key=lambda c: c.covered, default=None)
    result = {
        "format": form,
        "device": device,
        "imported": sum(d.imported for d in done),
        "already": sum(d.already for d in done),
        "skipped": sum(len(d.table.skipped) for d in done),
        "reasons": _reasons(done),
        "doubt": doubt,
        "tables": [_document(d, c) for d, c in zip(done, coverages, strict=True)],
        "holes": best.to_dict() if best else None,
        "store": shown_db(db),
    }
    output.print(result, lambda: _text(result, done, best))


def _coverage(done: Imported, chosen: SearchSpace, resolution: int | None) -> Coverage | None:
    """What a table of operators lacks of the space; at its own resolution unless one was given."""
    from phonenas import space as spaces
    from phonenas.data.importers import coverage

    operators = [r.subject for r in done.table.readings if r.kind == "operator"]
    if not operators:
        return None
    own = resolution or done.table.resolution_px or chosen.resolution_px
    if own != chosen.resolution_px:
        chosen = spaces.get(chosen.name, own)
    return coverage(chosen, operators)


def _reasons(done: list[Imported]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for d in done:
        for reason, (count, row) in d.reasons().items():
            entry = found.setdefault(reason, {"reason": reason, "count": 0, "example": row})
            entry["count"] += count
    return sorted(found.values(), key=lambda e: -int(e["count"]))


def _document(done: Imported, coverage: Coverage | None) -> dict[str, Any]:
    return {
        "file": done.table.file,
        "imported": done.imported,
        "already": done.already,
        "rows": done.table.rows,
        "skipped": len(done.table.skipped),
        "digest": done.table.conditions.digest,
        "conditions": done.table.conditions.to_dict(),
        "holes": coverage.to_dict() if coverage else None,
    }


def _text(result: dict[str, Any], done: list[Imported], coverage: Coverage | None) -> str:
    lines = [
        f"{counted(result['imported'], 'subject')} imported for {result['device']}, "
        f"{result['already']:,} were in the store already, "
        f"{counted(result['skipped'], 'row')} skipped: {result['store']}"
    ]
    if result["doubt"]:
        lines += ["", result["doubt"]]
    if result["reasons"]:
        rows = [[str(r["count"]), r["reason"], r["example"][:80]] for r in result["reasons"]]
        lines += ["", table(["skipped", "reason", "example"], rows)]
    lines.append("")
    for t in (d.table for d in done):
        of = f"{t.rows:,} of {t.rows + len(t.skipped):,} rows"
        lines.append(f"{t.file}: {of}: {t.conditions.digest}: {t.conditions}")
    if coverage:
        lines += [
            "",
            f"of {coverage.space} at {coverage.resolution_px} px: {coverage.covered:,} of "
            f"{coverage.covered + coverage.missing:,} operators"
            + (
                f"; missing, for example {', '.join(coverage.examples[:3])}"
                if coverage.missing
                else ""
            ),
        ]
        if coverage.networks:
            lines.append(f"whole networks: {', '.join(coverage.networks)}")
    return "\n".join(lines)


@command
def export(
    output: Output,
    db: str,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet file.")],
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
) -> None:
    """Write the store's measurements as a table, raw samples and conditions included."""
    from phonenas.data import export as write

    with open_store(db) as store:
        count = write(store, out, device)
        rejected = rejections(store, store.conditions(device))
    result = {"file": str(out), "measurements": count, "rejections": rejected}
    output.print(
        result, lambda: f"{counted(count, 'measurement')}: {out}" + rejection_table(rejected)
    )


def ready_phones(begins: str) -> list[ReadyPhone]:
    """The ready phones whose names begin with a text, "" for all.

    Raises:
        UnknownName: None does; the phones are named.
    """
    from phonenas.latency_model.ready import phones

    shipped = phones()
    found = [p for p in shipped if p.name.startswith(begins)]
    if not found:
        known = dict.fromkeys(p.name.partition("/")[0] for p in shipped)
        raise UnknownName(
            f"no ready phone's name begins with {begins[:80]!r}. " + nearest(begins[:80], known)
        )
    return found


def ready_table(phones: Sequence[ReadyPhone]) -> str:
    """Ready phones with their scores, and below them what the columns and the names mean."""
    rows = [
        [p.name, p.model, str(p.networks), f"{p.mape:.1%}", f"{p.acc10:.0%}", f"{p.spearman:.3f}"]
        for p in phones
    ]
    header = ["name", "phone", "networks", "MAPE", "acc10", "Spearman"]
    sources: dict[str, dict[str, None]] = {}
    for p in phones:
        source = f"{p.source}, {p.licence}, {p.date}"
        sources.setdefault(source, {})[p.name.partition("/")[0]] = None
    several = [*dict.fromkeys(p.name.partition("/")[0] for p in phones)]
    lines = [
        table(header, rows),
        "",
        "A name is PHONE/RUNTIME/UNIT/PRECISION; cpu-1large is one large core, cpu-2med two medium "
        "ones.",
        "PUBLIC: each is a latency model, fitted on measurements of so many networks that others "
        "published.",
        "Its score is on networks of families that the fit did not have: mean absolute error "
        "(MAPE), share",
        "predicted within 10 % (acc10), and rank correlation (Spearman).",
        *(f"measured by {source}: {', '.join(of)}" for source, of in sources.items()),
        "",
        *[f"those of one phone:  phonenas devices --ready {several[0]}"] * (len(several) > 1),
        f"search for one:  phonenas search --device {phones[0].name} --space mnasnet --target 30 "
        "--out runs/ready",
    ]
    return "\n".join(lines)
