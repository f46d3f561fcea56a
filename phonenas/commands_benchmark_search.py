"""The command that holds search strategies against a table whose exact front is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .commands_benchmark import read_table
from .console import AsJson, Quiet, Verbose, print_result, table
from .space.errors import InvalidArgument

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
    model_share: Annotated[
        float | None,
        typer.Option(
            "--model-share",
            help="Strategies see a model that this share of the rows taught, 0 to 1, and search "
            "the others; what they find is scored by the truth.",
        ),
    ] = None,
    limits: Annotated[
        int | None,
        typer.Option("--limits", help="With --model-share: limits of the cost to choose for; 5."),
    ] = None,
    chance: Annotated[
        list[float] | None,
        typer.Option(
            "--chance",
            help="With --model-share: chance with which a limit is to be kept; repeatable; 0.5.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Let strategies search a table, and state what share of its exact front's hypervolume they find.

    With --model-share: by what a model says, stated as regret at limits of the cost.
    """
    from .search import benchmark, benchmark_model, names

    def told(name: str, seed: int) -> None:
        if not quiet:
            print(f"{name}, seed {seed} of {seeds}", file=sys.stderr, flush=True)

    frame, wanted = read_table(file), strategy or names()
    if model_share is None:
        if limits is not None or chance:
            raise InvalidArgument("--limits and --chance go with --model-share: add it")
        found = benchmark.strategies(
            frame, genes=genes, maximize=maximize, minimize=minimize, names=wanted,
            evaluations=evaluations or [200, 500], seeds=seeds, on_event=told,
        )  # fmt: skip
        print_result(found, as_json, lambda: _shares(found, maximize, minimize))
    else:
        regrets = benchmark_model.strategies_on_a_model(
            frame, genes=genes, maximize=maximize, minimize=minimize, names=wanted,
            evaluations=evaluations or [200, 500], seeds=seeds, share=model_share,
            limits=5 if limits is None else limits, chances=chance or [0.5], on_event=told,
        )  # fmt: skip
        print_result(regrets, as_json, lambda: _regrets(regrets, maximize, minimize))


def _left(found: dict[str, Any]) -> str:
    left = found["left_out"]
    return f"; {left} rows without a value or with genes seen before left out" if left else ""


def _shares(found: dict[str, Any], maximize: str, minimize: str) -> str:
    lines = [
        [r["strategy"], str(r["seed"]), f"{r['evaluations']:,}", f"{r['hypervolume_ratio']:.4f}"]
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
            f"{maximize} up, {minimize} down: the exact front holds "
            f"{found['exact_front']['networks']} networks{_left(found)}",
            table(["strategy", "seed", "evaluations", "hypervolume, share of the front's"], lines),
            "",
            table(
                ["strategy", "", "evaluations", "hypervolume, share of the front's", "worst"], means
            ),
            *(
                f"{r['strategy']}, seed {r['seed']}: nothing new after {r['distinct']:,} networks"
                for r in short
            ),
        ]
    )


def _regrets(found: dict[str, Any], maximize: str, minimize: str) -> str:
    model, limits, means = found["model"], found["limits"], found["means"]
    seeds = means[0]["seeds"]
    header = ["", "judged", *(f"≤ {x['limit']:.4g}" for x in limits), "mean"]
    text = [
        f"A model of {model['taught']:,} rows tells of {model['searched']:,} others: {maximize} "
        f"Spearman {model['quality_spearman']:.4f}, off by {model['quality_rmse']:.3g}; {minimize} "
        f"{model['cost_spearman']:.4f}, {model['cost_rmse']:.3g}{_left(found)}",
        f"Regret in {maximize} by the truth at limits of {minimize}, mean of {seeds}; in brackets "
        "how often the limit was truly overstepped",
    ]
    best = ["best row", "", *(f"{x['best_quality']:.4g}" for x in limits), ""]
    blind = [x["blind_regret"] for x in limits]
    for chance in dict.fromkeys(r["chance"] for r in means):
        lines = [
            best,
            ["blind", "", *(f"{r:.3f}" for r in blind), f"{sum(blind) / len(blind):.3f}"],
        ]
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for r in means:
            if r["chance"] == chance:
                groups.setdefault((r["strategy"], r["evaluations"]), []).append(r)
        for (name, judged), row in groups.items():
            missed = sum(r["misses"] for r in row)
            lines.append(
                [
                    name, f"{judged:,}",
                    *(f"{r['regret']:.3f}" + f" ({r['misses']})" * bool(r["misses"]) for r in row),
                    f"{sum(r['regret'] for r in row) / len(row):.3f}" + f" ({missed})" * bool(missed),
                ]
            )  # fmt: skip
        text += ["", f"limits to be kept with a chance of {chance:g}", table(header, lines)]
    return "\n".join(text)
