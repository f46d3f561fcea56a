"""The command that holds search strategies against a table whose exact front is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .commands_benchmark import read_table
from .console import AsJson, Quiet, Verbose, print_result, table

__all__ = ["search"]


def search(
    file: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV with a header, one network a row.")
    ],
    genes: Annotated[
        list[str], typer.Option("--genes", help="Gene columns, a pattern; repeatable.")
    ],
    maximize: Annotated[str, typer.Option("--maximize", help="Column of the quality.")],
    minimize: Annotated[str, typer.Option("--minimize", help="Column of the cost.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", help="nsga2, weighted, rl, surrogate or random; repeatable; default all."
        ),
    ] = None,
    evaluations: Annotated[
        list[int] | None,
        typer.Option("--evaluations", help="Distinct networks to judge; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy, from seed 0.")] = 10,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Let strategies search a table, and state what share of its exact front they find."""
    from .search import benchmark, names

    def told(name: str, seed: int) -> None:
        if not quiet:
            print(f"{name}, seed {seed} of {seeds}", file=sys.stderr, flush=True)

    found = benchmark.strategies(
        read_table(file), genes=genes, maximize=maximize, minimize=minimize,
        names=strategy or names(), evaluations=evaluations or [200, 500], seeds=seeds,
        on_event=told,
    )  # fmt: skip

    def text() -> str:
        front, left = found["exact_front"], found["left_out"]
        lines = [
            [
                r["strategy"],
                str(r["seed"]),
                f"{r['evaluations']:,}",
                f"{r['hypervolume_ratio']:.4f}",
            ]
            for r in found["rows"]
        ]
        means = [
            [
                r["strategy"], f"mean of {r['seeds']}", f"{r['evaluations']:,}",
                f"{r['hypervolume_ratio']:.4f}", f"{r['worst']:.4f}",
            ]
            for r in found["means"]
        ]  # fmt: skip
        short = [r for r in found["rows"] if r["distinct"] < r["evaluations"]]
        return "\n".join(
            [
                f"{maximize} up, {minimize} down: the exact front holds {front['networks']} networks"
                + (
                    f"; {left} rows without a value or with genes seen before left out" * bool(left)
                ),
                table(["strategy", "seed", "evaluations", "share of the front"], lines),
                "",
                table(["strategy", "", "evaluations", "share of the front", "worst"], means),
                *(
                    f"{r['strategy']}, seed {r['seed']}: nothing new after {r['distinct']:,} networks"
                    for r in short
                ),
            ]
        )

    print_result(found, as_json, text)
