"""Commands that evaluate the models on tables that others published: benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName, UnsupportedFormat

from .options import BrokenImages, Output, Seed, StrategySettings, command, settings_of
from .output import table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["accuracy", "networks", "read_table", "search", "surrogate", "transfer"]

Table = Annotated[
    Path, typer.Argument(metavar="TABLE", help="CSV with a header, one network a row.")
]
Genes = Annotated[list[str], typer.Option("--genes", help="Gene columns, a pattern; repeatable.")]
Target = Annotated[str, typer.Option("--target", help="Column to predict.")]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", help="Also a straight line in this column, for example MACs."),
]


@command
def surrogate(
    output: Output,
    file: Table,
    genes: Genes,
    target: Target,
    train: Annotated[
        list[int] | None, typer.Option(help="Number of rows to fit on; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Shuffles, from 0.")] = 3,
    baseline: Baseline = None,
) -> None:
    """Predict a column from genes: fit on some rows, evaluate on all others, beside baselines."""
    from phonenas.latency_model.benchmarks import columns

    scores = columns.surrogate(
        read_table(file),
        genes=genes,
        target=target,
        train=train or [200, 1000],
        seeds=seeds,
        baseline=baseline,
    )

    def text() -> str:
        named = {"model": scores["rows"], **scores["baselines"]}
        header = ["train", "seed", "test", "", *_HEADER[:2], "RMSE", *_HEADER[2:]]
        lines = [
            [str(r["train"]), str(r["seed"]), str(r["test"]), name, *_figures(r, rmse=True)]
            for i in range(len(scores["rows"]))
            for name, r in ((n, rows[i]) for n, rows in named.items())
        ]
        return "\n".join(
            [
                f"{target} from {scores['genes']} genes, ○ predicted against the rows that it "
                f"was not fitted on{_left(scores)}",
                table(header, lines),
            ]
        )

    output.print(scores, text)


@command
def transfer(
    output: Output,
    file: Table,
    genes: Genes,
    source: Annotated[list[str], typer.Option(help="Columns of other devices; repeatable.")],
    target: Target,
    samples: Annotated[int, typer.Option(help="Rows of the target to measure.")] = 10,
    source_samples: Annotated[int, typer.Option(help="Rows known of each source.")] = 900,
    draws: Annotated[int, typer.Option(min=1, help="Repetitions, with other known rows.")] = 20,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Columns that are not sources; repeatable.")
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option(help="One family: no source if the target is in it; repeatable."),
    ] = None,
    baseline: Baseline = None,
) -> None:
    """Predict a device from a few of its measurements and other devices, beside baselines."""
    from phonenas.latency_model.benchmarks import columns

    scores = columns.transfer(
        read_table(file),
        columns.DeviceColumns(target, source, exclude or [], family or []),
        genes=genes,
        samples=samples,
        source_samples=source_samples,
        draws=draws,
        baseline=baseline,
    )

    def text() -> str:
        lines = [["model", str(r["draw"]), *_figures(r)] for r in scores["rows"]]
        mean = scores["mean"]
        means = {"model": mean, **scores["baselines"]}
        lines += [[name, "mean", *_figures(r)] for name, r in means.items()]
        return "\n".join(
            [
                f"{target} from {samples} samples and {len(scores['sources'])} other devices "
                f"({source_samples} rows each), ○ predicted against all other rows{_left(scores)}",
                table(["", "draw", *_HEADER], lines),
                f"method: {scores['method']}",
                f"expected before the test: MAPE {mean['expected_mape']:.2%}, Spearman "
                f"{mean['expected_spearman']:.4f}; {mean['coverage90']:.1%} of the rows inside "
                "their 90 % interval",
            ]
        )

    output.print(scores, text)


@command
def networks(
    output: Output,
    operators: Annotated[
        Path, typer.Argument(metavar="OPERATORS", help="CSV with a header, one operator a row.")
    ],
    whole: Annotated[
        Path, typer.Argument(metavar="NETWORKS", help="CSV with a header, one network a row.")
    ],
    device: Annotated[str, typer.Option(help="Column of times, µs.")],
    test: Annotated[list[str], typer.Option(help="Networks to predict, a pattern; repeatable.")],
) -> None:
    """Predict whole networks from other networks and their operators, beside baselines."""
    from phonenas.latency_model.benchmarks import networks

    scores = networks.networks(read_table(operators), read_table(whole), device=device, test=test)

    def text() -> str:
        names = {
            "model": "score",
            "operators as predicted, summed": "raw_sum",
            "line in multiply-adds": "macs",
            "plain trees and a line": "booster",
            "operators as measured, and a line": "measured_sum",
        }
        lines = [[name, *_figures(scores[key])] for name, key in names.items()]
        without = ", ".join(scores["left_out_networks"])
        left = f"; {scores['left_out']} networks without a time left out: {without}" * bool(without)
        return "\n".join(
            [
                f"{device}: {scores['n_test']} networks from {scores['n_train']} others, ○ "
                f"predicted against ● measured; operators alone {scores['operator_mape']:.1%} off; "
                f"{scores['score']['coverage90']:.0%} inside their 90 % interval{left}",
                table(["", *_HEADER], lines),
                f"method: {scores['method']}",
            ]
        )

    output.print(scores, text)


_SEEN = "rows without a value or with genes seen before"
_HEADER = ["Spearman", "Kendall", "MAPE", "acc10"]


def _figures(row: dict[str, Any], rmse: bool = False) -> list[str]:
    ranks = ["" if row[k] is None else f"{row[k]:.4f}" for k in ("spearman", "kendall_tau")]
    error = [f"{row['rmse']:.4g}"] if rmse else []
    return [*ranks, *error, f"{row['mape']:.2%}", f"{row['acc10']:.1%}"]


def _left(result: dict[str, Any], what: str = "rows without a value") -> str:
    return f"; {result['left_out']} {what} left out" if result["left_out"] else ""


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file with a header.

    Raises:
        UnknownName: There is no such file.
        UnsupportedFormat: It is not a table.
    """
    import pandas as pd

    if not path.is_file():
        raise UnknownName(f"there is no table {path}")
    try:
        frame = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise UnsupportedFormat(f"{path} is not a CSV table with a header: {reason}") from error
    if frame.empty:
        raise NotEnoughData(f"{path} has no rows")
    return frame


@command
def search(
    output: Output,
    file: Table,
    genes: Genes,
    maximize: Annotated[str, typer.Option(help="Column of the quality.")],
    minimize: Annotated[str, typer.Option(help="Column of the cost.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="{strategies}; with settings: 'nsga2 population=40'; repeatable; default: all."
        ),
    ] = None,
    evaluations: Annotated[
        list[int] | None, typer.Option(help="Number of distinct networks; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy, from seed 0.")] = 10,
    set_: StrategySettings = None,
    model_share: Annotated[
        float | None,
        typer.Option(
            help="Search by a model fitted on this share of the rows, 0 to 1; the table scores the "
            "result."
        ),
    ] = None,
    limits: Annotated[
        int | None, typer.Option(help="With --model-share: number of limits of the cost; 5.")
    ] = None,
    chance: Annotated[
        list[float] | None,
        typer.Option(help="With --model-share: chance to meet a limit; repeatable; 0.5."),
    ] = None,
) -> None:
    """Search a table, and print the share of its exact front's hypervolume that is found.

    With --model-share: search by the predictions of a model, and print the regret at limits of the
    cost.
    """
    from phonenas.search import names
    from phonenas.search.benchmarks import model
    from phonenas.search.benchmarks import table as table_room

    def show(name: str, seed: int) -> None:
        output.note(f"{name}, seed {seed} of {seeds}")

    settings = "".join(f" {name}={value}" for name, value in settings_of(set_).items())
    if settings and not strategy:
        raise InvalidArgument("--set goes with --strategy: name the strategies that have it")
    wanted = [name + settings for name in strategy or names()]
    rows = table_room.read(read_table(file), genes=genes, maximize=maximize, minimize=minimize)
    if model_share is None:
        if limits is not None or chance:
            raise InvalidArgument("--limits and --chance go with --model-share: give it, too")
        compared = table_room.strategies(
            rows, names=wanted, evaluations=evaluations or [200, 500], seeds=seeds, on_event=show
        )
        output.print(compared, lambda: _shares(compared, maximize, minimize))
    else:
        regrets = model.strategies_on_a_model(
            rows,
            names=wanted,
            evaluations=evaluations or [200, 500],
            seeds=seeds,
            share=model_share,
            limits=5 if limits is None else limits,
            chances=chance or [0.5],
            on_event=show,
        )
        output.print(regrets, lambda: _regrets(regrets, maximize, minimize))


def _shares(result: dict[str, Any], maximize: str, minimize: str) -> str:
    lines = [
        [r["strategy"], str(r["seed"]), f"{r['evaluations']:,}", f"{r['hypervolume_ratio']:.4f}"]
        for r in result["rows"]
    ]
    means = [
        [
            r["strategy"],
            f"mean of {r['seeds']}",
            f"{r['evaluations']:,}",
            f"{r['hypervolume_ratio']:.4f}",
            f"{r['worst']:.4f}",
        ]
        for r in result["means"]
    ]
    short = [r for r in result["rows"] if r["distinct"] < r["evaluations"]]
    return "\n".join(
        [
            f"{maximize} up, {minimize} down: the exact front holds "
            f"{result['exact_front']['networks']} networks{_left(result, _SEEN)}",
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


def _regrets(result: dict[str, Any], maximize: str, minimize: str) -> str:
    model, limits, means = result["model"], result["limits"], result["means"]
    seeds = means[0]["seeds"]
    header = ["", "evaluated", *(f"≤ {x['limit']:.4g}" for x in limits), "mean"]
    text = [
        f"A model fitted on {model['taught']:,} rows predicts {model['searched']:,} others: "
        f"{maximize} Spearman {model['quality_spearman']:.4f}, RMSE {model['quality_rmse']:.3g}; "
        f"{minimize} "
        f"{model['cost_spearman']:.4f}, {model['cost_rmse']:.3g}{_left(result, _SEEN)}",
        f"Regret in {maximize} by the table, at limits of {minimize}, mean of {seeds} seeds; in "
        "brackets how often the network exceeds the limit by the table",
    ]
    best = ["best row", "", *(f"{x['best_quality']:.4g}" for x in limits), ""]
    blind = [x["blind_regret"] for x in limits]
    for chance in dict.fromkeys(r["chance"] for r in means):
        lines = [
            best,
            ["random", "", *(f"{r:.3f}" for r in blind), f"{sum(blind) / len(blind):.3f}"],
        ]
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for r in means:
            if r["chance"] == chance:
                groups.setdefault((r["strategy"], r["evaluations"]), []).append(r)
        for (name, evaluated), row in groups.items():
            missed = sum(r["misses"] for r in row)
            lines.append(
                [
                    name,
                    f"{evaluated:,}",
                    *(f"{r['regret']:.3f}" + f" ({r['misses']})" * bool(r["misses"]) for r in row),
                    f"{sum(r['regret'] for r in row) / len(row):.3f}"
                    + f" ({missed})" * bool(missed),
                ]
            )
        text += ["", f"chance to meet the limit: {chance:g}", table(header, lines)]
    return "\n".join(text)


@command
def accuracy(
    output: Output,
    file: Table,
    space: Annotated[
        str, typer.Option(help="Space whose decisions the gene columns are. {spaces}.")
    ],
    genes: Genes,
    target: Annotated[str, typer.Option(help="Column of trained accuracies.")],
    networks: Annotated[int, typer.Option(min=3, help="Rows drawn, without repeats.")] = 100,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(min=1, help="Repetitions, with other rows.")] = 1,
    estimator: Annotated[
        list[str] | None, typer.Option(help="{estimators}; repeatable; zero_cost by default.")
    ] = None,
    trained: Annotated[
        int | None,
        typer.Option(
            min=10, max=200, help="Further rows of each draw, given to zero_cost as trained."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Images: a folder, .npz or idx files.")] = None,
    broken: BrokenImages = "stop",
) -> None:
    """Rank a table's networks by estimators, beside MACs and parameters as baselines."""
    from phonenas import space as spaces
    from phonenas.data.images import read_images
    from phonenas.search.accuracy.estimator import Request
    from phonenas.search.accuracy.registry import estimator as chosen
    from phonenas.search.accuracy.registry import takes_images
    from phonenas.search.benchmarks.accuracy import benchmark, read

    from .progress import Bars

    names = estimator or ["zero_cost"]
    if data is None:
        output.refuse("broken", "is about the images of --data: give --data, too")
    elif not any(map(takes_images, names)):
        output.refuse("data", f"is for estimators that take images, not for {', '.join(names)}")
    searched = spaces.get(space)
    images = None if data is None else read_images(data, broken=broken)
    began: dict[str, float] = {}
    with Bars(output.quiet) as bars:

        def show(name: str, done: int, networks: int) -> None:
            if not done:
                began[name] = time.monotonic()
            mean_s = (time.monotonic() - began[name]) / max(done, 1)
            bars.estimating(done, networks, mean_s, f" by {name}")

        scores = benchmark(
            read(read_table(file), searched, genes=genes, target=target),
            {
                words: chosen(
                    words,
                    Request(
                        space=searched, images=images if takes_images(words) else None, seed=seed
                    ),
                )
                for words in dict.fromkeys(names)
            },
            networks=networks,
            seed=seed,
            draws=draws,
            trained=trained or 0,
            on_estimated=show,
        )
    blind = data is None and any(takes_images(words) for words in names)

    def text() -> str:
        lines = [_line(row, str(row["draw"]), str(row["n"])) for row in scores["rows"]]
        if draws > 1:
            lines += [
                _line({"estimator": name, **mean}, "mean", "")
                for name, mean in scores["mean"].items()
            ]
        header = ["", "draw", "n", "Kendall", "Spearman", "s a network"]
        tied = any(row["kendall_tau"] is None for row in scores["rows"])
        left = "; – means that all its estimates are equal" * tied
        left += f"; {scores['left_out']:,} rows left out" * bool(scores["left_out"])
        return "\n".join(
            [
                f"{networks} networks of {searched.name} a draw, ○ ranked against {target} of the "
                f"table{f', {trained} others given as trained' * bool(trained)}{left}",
                table(header, lines),
                *(["without --data the proxies are computed on noise"] if blind else []),
            ]
        )

    output.print(scores, text)


def _line(row: dict[str, Any], draw: str, n: str) -> list[str]:
    ranks = ["–" if row[k] is None else f"{row[k]:.3f}" for k in ("kendall_tau", "spearman")]
    return [row["estimator"], draw, n, *ranks, f"{row['seconds_per_network']:.2g}"]
