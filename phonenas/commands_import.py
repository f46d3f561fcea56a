"""The command that brings in tables which others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    DEFAULT_DB,
    AsJson,
    Db,
    OwnResolution,
    Quiet,
    Space,
    Verbose,
    open_store,
    print_result,
    shown_db,
    table,
)  # fmt: skip

if TYPE_CHECKING:
    from .data.importers import Holes, Imported
    from .space import SearchSpace

__all__ = ["import_"]


def import_(
    form: Annotated[
        str, typer.Argument(metavar="FORMAT", help="proxylessnas, ofa, singlepathnas, edge or csv.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Published tables.")],
    device: Annotated[str, typer.Option("--device", help="Name to keep the numbers under.")],
    model: Annotated[
        str | None, typer.Option("--model", help="What the device is, as 'Pixel 1'.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Of an edge table, as 'pixel4|1large|float|mean'.")
    ] = None,
    space: Space = "mnasnet",
    resolution: OwnResolution = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring in latency tables that others published, and say what they leave open."""
    from . import space as spaces
    from .data import importers

    chosen = spaces.get(space, resolution or 224)
    # All files are read before the first is kept: an error in the last one leaves nothing behind.
    read = [
        t for path in files for t in importers.read(form, path, device, column=column, model=model)
    ]
    with open_store(db, create=True) as store:
        done = importers.import_tables(read, store)
    told = [_holes(d, chosen, resolution) for d in done]
    best = max((h for h in told if h is not None), key=lambda h: h.covered, default=None)
    result = {
        "format": form,
        "device": device,
        "imported": sum(d.imported for d in done),
        "already": sum(d.already for d in done),
        "skipped": sum(len(d.table.skipped) for d in done),
        "reasons": _reasons(done),
        "tables": [_document(d, h) for d, h in zip(done, told, strict=True)],
        "holes": best.to_dict() if best else None,
        "store": shown_db(db),
    }
    print_result(result, as_json, lambda: _text(result, done, best))


def _holes(done: Imported, chosen: SearchSpace, resolution: int | None) -> Holes | None:
    """What a table of operators lacks of the space; at its own resolution unless one was given."""
    from . import space as spaces
    from .data.importers import holes

    operators = [r.subject for r in done.table.readings if r.kind == "operator"]
    if not operators:
        return None
    own = resolution or done.table.resolution_px or chosen.resolution_px
    if own != chosen.resolution_px:
        chosen = spaces.get(chosen.name, own)
    return holes(chosen, operators)


def _reasons(done: list[Imported]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for d in done:
        for reason, (count, row) in d.reasons().items():
            entry = found.setdefault(reason, {"reason": reason, "count": 0, "example": row})
            entry["count"] += count
    return sorted(found.values(), key=lambda e: -int(e["count"]))


def _document(done: Imported, holes: Holes | None) -> dict[str, Any]:
    return {
        "file": done.table.file,
        "imported": done.imported,
        "already": done.already,
        "skipped": len(done.table.skipped),
        "digest": done.table.conditions.digest,
        "conditions": done.table.conditions.to_dict(),
        "holes": holes.to_dict() if holes else None,
    }


def _text(result: dict[str, Any], done: list[Imported], holes: Holes | None) -> str:
    lines = [
        f"{result['imported']:,} subjects imported for {result['device']}, {result['already']:,} "
        f"were there, {result['skipped']:,} rows skipped: {result['store']}"
    ]
    if result["reasons"]:
        rows = [[str(r["count"]), r["reason"], r["example"][:80]] for r in result["reasons"]]
        lines += ["", table(["skipped", "because", "as"], rows)]
    lines += [""] + [
        f"{d.table.file}: {d.table.conditions.digest}: {d.table.conditions}" for d in done
    ]
    if holes:
        lines += [
            "",
            f"of {holes.space} at {holes.resolution_px} px: {holes.covered:,} of "
            f"{holes.covered + holes.missing:,} operators"
            + (f"; missing, as {', '.join(holes.examples[:3])}" if holes.missing else ""),
        ]
        if holes.networks:
            lines.append(f"whole networks: {', '.join(holes.networks)}")
    return "\n".join(lines)
