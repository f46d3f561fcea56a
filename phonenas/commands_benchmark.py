"""The commands that examine the models on tables that others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import AsJson, Quiet, Verbose, print_result, table
from .space.errors import NotEnoughData, UnknownName, UnsupportedFormat

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["networks", "read_table", "surrogate", "transfer"]

Genes = Annotated[list[str], typer.Option("--genes", help="Gene columns, a pattern; repeatable.")]
Target = Annotated[str, typer.Option("--target", help="Column to predict.")]
Baseline = Annotated[
    str | None, typer.Option("--baseline", help="Also a straight line in this column, as MACs.")
]


def surrogate(
    file: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV with a header, one network a row.")
    ],
    genes: Genes,
    target: Target,
    train: Annotated[
        list[int] | None, typer.Option("--train", help="Rows that teach; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Shuffles, from 0.")] = 3,
    baseline: Baseline = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Learn a column from genes on some rows, predict all others, beside baselines."""
    from .latency_model import benchmark

    found = benchmark.surrogate(
        read_table(file), genes=genes, target=target, train=train or [200, 1000], seeds=seeds,
        baseline=baseline,
    )  # fmt: skip

    def text() -> str:
        named = {"model": found["rows"], **found["baselines"]}
        header = ["train", "seed", "test", "", *_HEADER[:2], "RMSE", *_HEADER[2:]]
        lines = [
            [str(r["train"]), str(r["seed"]), str(r["test"]), name, *_figures(r, rmse=True)]
            for i in range(len(found["rows"]))
            for name, r in ((n, rows[i]) for n, rows in named.items())
        ]
        return "\n".join(
            [
                f"{target} from {found['genes']} genes, ○ predicted against the table's rows that "
                f"did not teach{_left(found)}",
                table(header, lines),
            ]
        )

    print_result(found, as_json, text)


def transfer(
    file: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV with a header, one network a row.")
    ],
    genes: Genes,
    source: Annotated[
        list[str], typer.Option("--source", help="Columns of other devices; repeatable.")
    ],
    target: Target,
    samples: Annotated[int, typer.Option(help="Rows of the target to measure.")] = 10,
    source_samples: Annotated[int, typer.Option(help="Rows known of each source.")] = 900,
    draws: Annotated[int, typer.Option(min=1, help="Repetitions, with other known rows.")] = 20,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Columns that are no sources; repeatable.")
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", help="One family: no source if the target is in it; repeatable."),
    ] = None,
    baseline: Baseline = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Predict a device from a few of its measurements and other devices, beside baselines."""
    from .latency_model import benchmark

    found = benchmark.transfer(
        read_table(file), genes=genes, sources=source, target=target, samples=samples,
        source_samples=source_samples, draws=draws, exclude=exclude or [], family=family or [],
        baseline=baseline,
    )  # fmt: skip

    def text() -> str:
        lines = [["model", str(r["draw"]), *_figures(r)] for r in found["rows"]]
        mean = found["mean"]
        means = {"model": mean, **found["baselines"]}
        lines += [[name, "mean", *_figures(r)] for name, r in means.items()]
        return "\n".join(
            [
                f"{target} from {samples} samples and {len(found['sources'])} other devices "
                f"({source_samples} rows each), ○ predicted against all other rows{_left(found)}",
                table(["", "draw", *_HEADER], lines),
                f"told beforehand: MAPE {mean['expected_mape']:.2%}, Spearman "
                f"{mean['expected_spearman']:.4f}; {mean['coverage90']:.1%} of the rows inside "
                "their 90 % interval",
            ]
        )

    print_result(found, as_json, text)


def networks(
    operators: Annotated[
        Path, typer.Argument(metavar="OPERATORS", help="CSV with a header, one operator a row.")
    ],
    whole: Annotated[
        Path, typer.Argument(metavar="NETWORKS", help="CSV with a header, one network a row.")
    ],
    device: Annotated[str, typer.Option("--device", help="Column of times, µs.")],
    test: Annotated[
        list[str], typer.Option("--test", help="Networks to predict, a pattern; repeatable.")
    ],
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Learn from some networks' operators and wholes, predict other networks, beside baselines."""
    from .latency_model import benchmark_networks

    found = benchmark_networks.networks(
        read_table(operators), read_table(whole), device=device, test=test
    )

    def text() -> str:
        names = {
            "model": "score", "operators as predicted, summed": "raw_sum",
            "line in multiply-adds": "macs", "plain trees and a line": "booster",
            "operators as measured, and a line": "measured_sum",
        }  # fmt: skip
        lines = [[name, *_figures(found[key])] for name, key in names.items()]
        left = f"; {found['left_out']} networks without a time left out" * bool(found["left_out"])
        return "\n".join(
            [
                f"{device}: {found['n_test']} networks from {found['n_train']} others, ○ predicted "
                f"against ● measured; operators alone {found['operator_mape']:.1%} off; "
                f"{found['score']['coverage90']:.0%} inside their 90 % interval{left}",
                table(["", *_HEADER], lines),
            ]
        )

    print_result(found, as_json, text)


_HEADER = ["Spearman", "Kendall", "MAPE", "acc10"]


def _figures(row: dict[str, Any], rmse: bool = False) -> list[str]:
    ranks = ["" if row[k] is None else f"{row[k]:.4f}" for k in ("spearman", "kendall_tau")]
    error = [f"{row['rmse']:.4g}"] if rmse else []
    return [*ranks, *error, f"{row['mape']:.2%}", f"{row['acc10']:.1%}"]


def _left(found: dict[str, Any]) -> str:
    return f"; {found['left_out']} rows without a value left out" if found["left_out"] else ""


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file with a header.

    Raises:
        UnknownName: There is no such file.
        UnsupportedFormat: It is no table.
    """
    import pandas as pd

    if not path.is_file():
        raise UnknownName(f"there is no table {path}")
    try:
        frame = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        told = " ".join(str(error).split())
        raise UnsupportedFormat(f"{path} is no CSV table with a header: {told}") from error
    if frame.empty:
        raise NotEnoughData(f"{path} has no rows")
    return frame
