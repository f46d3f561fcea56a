"""`benchmark accuracy`: estimators of accuracy on a table of trained networks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .commands_benchmark import Genes, read_table
from .console import AsJson, BrokenImages, Quiet, Seed, Verbose, print_result, table

__all__ = ["accuracy"]


def accuracy(
    file: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV with a header, one network a row.")
    ],
    space: Annotated[str, typer.Option("--space", help="Whose decisions the gene columns name.")],
    genes: Genes,
    target: Annotated[str, typer.Option("--target", help="Column of trained accuracies.")],
    networks: Annotated[int, typer.Option(min=3, help="Rows drawn, without repeats.")] = 100,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(min=1, help="Repetitions, with other rows.")] = 1,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", help="NAME or NAME:WHAT, as in search; repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Images: a folder, .npz or idx files.")
    ] = None,
    broken: BrokenImages = "stop",
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Rank a table's networks by estimators, beside MACs and parameters as baselines."""
    from . import space as spaces
    from .data.images import read_images
    from .progress import Bars
    from .search.accuracy.benchmark import benchmark
    from .search.accuracy.choose import estimator as chosen
    from .search.accuracy.choose import takes_images

    asked = estimator or ["zero_cost"]
    searched = spaces.get(space)
    images = None if data is None else read_images(data, broken=broken)
    began: dict[str, float] = {}
    with Bars(quiet) as bars:

        def judged(name: str, done: int, of: int) -> None:
            if not done:
                began[name] = time.monotonic()
            mean_s = (time.monotonic() - began[name]) / max(done, 1)
            bars.estimating(done, of, mean_s, f" by {name}")

        found = benchmark(
            read_table(file),
            searched,
            genes=genes,
            target=target,
            estimators={
                words: chosen(
                    words, space=searched, images=images if takes_images(words) else None, seed=seed
                )
                for words in dict.fromkeys(asked)
            },
            networks=networks,
            seed=seed,
            draws=draws,
            on_judged=judged,
        )
    blind = data is None and any(takes_images(words) for words in asked)

    def text() -> str:
        lines = [_line(row, str(row["draw"]), str(row["n"])) for row in found["rows"]]
        if draws > 1:
            lines += [
                _line({"estimator": name, **mean}, "mean", "")
                for name, mean in found["mean"].items()
            ]
        header = ["", "draw", "n", "Kendall", "Spearman", "s a network"]
        tied = any(row["kendall_tau"] is None for row in found["rows"])
        left = "; – where all its estimates are equal" * tied
        left += f"; {found['left_out']:,} rows left out" * bool(found["left_out"])
        return "\n".join(
            [
                f"{networks} networks of {searched.name} a draw, ○ ranked against {target} of the "
                f"table{left}",
                table(header, lines),
                *(["without --data the proxies were shown noise"] if blind else []),
            ]
        )

    print_result(found, as_json, text)


def _line(row: dict[str, Any], draw: str, n: str) -> list[str]:
    ranks = ["–" if row[k] is None else f"{row[k]:.3f}" for k in ("kendall_tau", "spearman")]
    return [row["estimator"], draw, n, *ranks, f"{row['seconds_per_network']:.2g}"]
