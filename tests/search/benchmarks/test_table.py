"""Strategies on tables whose exact front is known: the count, the answer, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from phonenas import cli, search
from phonenas.search.benchmarks import model
from phonenas.search.benchmarks import table as table_room
from phonenas.space import Genomes
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName

SHARED = Path(__file__).parents[4] / "shared" / "data"


def grid(options: int = 3, genes: int = 5) -> pd.DataFrame:
    """Every genome of a small space; quality and cost of each known by heart."""
    rows = np.array(np.meshgrid(*[range(options)] * genes)).reshape(genes, -1).T
    frame = pd.DataFrame(rows, columns=[f"g{i}" for i in range(genes)])
    frame["cost"] = rows.sum(axis=1) + 1.0
    frame["quality"] = 10.0 * rows[:, 0] + rows[:, 1:].sum(axis=1)
    return frame


def read(frame: pd.DataFrame, **more: Any) -> table_room.Table:
    asked: dict[str, Any] = {"genes": ["g*"], "maximize": "quality", "minimize": "cost"}
    return table_room.read(frame, **asked | more)


def asked(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    columns = {k: more.pop(k) for k in ("genes", "maximize", "minimize") if k in more}
    settings: dict[str, Any] = {"names": ["random"], "evaluations": [40], "seeds": 2}
    return table_room.strategies(read(frame, **columns), **settings | more)


def test_the_exact_front_is_that_of_all_rows() -> None:
    table = read(grid())
    assert len(table) == 243
    # The first gene is worth ten others: the front takes it first, then any other gene by gene.
    costs = sorted(float(c) for c in table.losses[table.front, 1] * 10 + 1)
    assert costs == pytest.approx(range(1, 12))
    assert table.losses.min() == 0 and table.losses.max() == 1
    assert table.hypervolume(table.front) == pytest.approx(table.hypervolume())
    assert 0 < table.hypervolume([0, 1]) < table.hypervolume()


def test_signs_of_columns_do_not_matter() -> None:
    frame = grid()
    shifted = frame.assign(quality=frame.quality - 50, cost=frame.cost * 7 - 100)
    assert read(shifted).hypervolume() == pytest.approx(read(frame).hypervolume())


def test_rows_that_lack_a_value_or_repeat_genes_are_left_out() -> None:
    frame = pd.concat([grid(), grid().head(3)], ignore_index=True)
    frame.loc[10, "cost"] = np.nan
    table = read(frame)
    assert table.left_out == 4 and len(table) == 242
    assert asked(frame)["left_out"] == 4


def test_genes_may_be_words_and_truths() -> None:
    frame = grid().assign(g0=lambda f: [("a", "b", "c")[v] for v in f.g0], g1=lambda f: f.g1 > 0)
    table = read(frame.drop_duplicates(["g0", "g1", "g2", "g3", "g4"]))
    assert table.space.option_counts.tolist() == [3, 2, 3, 3, 3]
    assert read(grid(), genes=["g[012]"]).space.option_counts.tolist() == [3, 3, 3]


class _Script(search.RandomSearch):
    """Proposes what it was given, and remembers what it was told."""

    def __init__(self, turns: list[list[list[int]]]) -> None:
        super().__init__(0)
        self.turns = [np.array(t, np.int8) for t in turns]
        self.told: list[Genomes] = []

    def ask(self, n: int) -> Genomes:
        return self.turns.pop(0) if self.turns else np.empty((0, 2), np.int8)

    def tell(self, genomes: Genomes, losses: Any, violation: Any) -> None:
        self.told.append(genomes)


def test_only_distinct_rows_count() -> None:
    table = read(grid(3, 2))
    script = _Script([[[0, 0], [0, 0], [1, 1]], [[0, 0], [2, 2], [2, 1]], [[1, 2]]])
    walked = table_room.walk(script, table, 3)
    assert [table.space.genomes[r].tolist() for r in walked.rows] == [[0, 0], [1, 1], [2, 2]]
    assert walked.repeats == 2
    assert [t.tolist() for t in script.told][1] == [[0, 0], [2, 2]]  # cut before one too many


def test_what_is_not_in_the_table_is_answered_by_the_nearest_not_judged_yet() -> None:
    frame = grid(3, 2)
    table = read(frame[(frame.g0 != 1) | (frame.g1 == 0)])
    script = _Script([[[1, 1], [1, 1], [1, 1], [1, 2]]])
    table_room.walk(script, table, 7)
    # One gene off, one step: rows in order; then two genes off.
    assert script.told[0].tolist() == [[1, 0], [0, 1], [2, 1], [0, 2]]


def test_mutants_in_an_incomplete_table_are_other_rows_of_it() -> None:
    frame = grid(4, 6).sample(100, random_state=0)
    space = read(frame).space
    rng = np.random.default_rng(0)
    before = space.sample(rng, 300)
    after = space.mutate(before, rng)
    rows = {g.tobytes() for g in space.genomes}
    assert all(g.tobytes() in rows for g in [*before, *after])
    assert (before != after).any(axis=1).all()


@pytest.mark.parametrize("name", ["random", "nsga2", "weighted", "rl", "surrogate"])
def test_every_strategy_walks_a_table_to_its_end(name: str) -> None:
    if name == "rl":
        pytest.importorskip("torch")
    frame = grid(3, 4)
    table = read(frame[frame.g3 != frame.g2])  # incomplete
    walked = table_room.walk(search.get(name, 0), table, len(table))
    assert len(set(walked.rows.tolist())) == len(walked.rows) >= 0.9 * len(table)
    assert table.hypervolume(walked.rows) > 0.98 * table.hypervolume()


def test_rows_and_means() -> None:
    found = asked(grid(), names=["nsga2", "random"], evaluations=[100, 50, 243], seeds=3)
    assert found["exact_front"]["networks"] == 11
    assert len(found["rows"]) == 2 * 3 * 3
    assert len(found["means"]) == 2 * 3
    for r in found["rows"]:
        assert set(r) == {"strategy", "seed", "evaluations", "hypervolume_ratio", "distinct"}
        assert 0 < r["hypervolume_ratio"] <= 1
    whole = [r for r in found["rows"] if r["distinct"] == 243]
    assert whole and all(r["hypervolume_ratio"] == pytest.approx(1) for r in whole)
    mean = found["means"][0]
    shares = [
        r["hypervolume_ratio"]
        for r in found["rows"]
        if (r["strategy"], r["evaluations"]) == ("nsga2", 50)
    ]
    assert (mean["strategy"], mean["evaluations"]) == ("nsga2", 50)
    assert mean["hypervolume_ratio"] == pytest.approx(np.mean(shares))
    assert mean["worst"] == min(shares)
    assert asked(grid()) == asked(grid())


def test_a_run_of_a_smaller_budget_is_the_beginning_of_a_larger_one() -> None:
    table = read(grid())
    for name in ("random", "nsga2", "weighted"):
        small, large = (table_room.walk(search.get(name, 1), table, n).rows for n in (60, 150))
        assert np.array_equal(large[:60], small)


def test_bad_questions_are_refused() -> None:
    frame = grid()
    with pytest.raises(UnknownName, match="no column 'qualty'. Did you mean 'quality'"):
        asked(frame, maximize="qualty")
    with pytest.raises(UnknownName, match="no column matches 'x\\*'"):
        asked(frame, genes=["x*"])
    with pytest.raises(UnknownName, match="no strategy is called 'nsga'"):
        asked(frame, names=["nsga"])
    with pytest.raises(InvalidArgument, match="evaluations 9,999: the table holds 243"):
        asked(frame, evaluations=[9999])
    with pytest.raises(InvalidArgument, match="three different things"):
        asked(frame, minimize="quality")
    with pytest.raises(InvalidArgument, match="'cost' never changes"):
        asked(frame.assign(cost=1.0))
    with pytest.raises(InvalidArgument, match="'cost' must hold numbers; it holds 'dear'"):
        asked(frame.assign(cost="dear"))
    with pytest.raises(NotEnoughData, match="no front"):
        asked(frame.head(1))


def test_the_command(tmp_path: Path) -> None:
    grid().to_csv(tmp_path / "t.csv", index=False)
    words = [
        "benchmark",
        "search",
        str(tmp_path / "t.csv"),
        "--genes",
        "g*",
        "--maximize",
        "quality",
        "--minimize",
        "cost",
        "--strategy",
        "nsga2",
        "--strategy",
        "random",
        "--evaluations",
        "40",
        "--evaluations",
        "80",
        "--seeds",
        "2",
    ]
    told = CliRunner().invoke(cli.app, [*words, "--json", "--quiet"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert len(found["rows"]) == 8 and found["exact_front"]["networks"] == 11
    text = CliRunner().invoke(cli.app, words)
    assert "mean of 2" in text.stdout and "the exact front holds 11 networks" in text.stdout


def test_settings_of_strategies_are_options_of_the_command(tmp_path: Path) -> None:
    grid().to_csv(tmp_path / "t.csv", index=False)
    words = ["benchmark", "search", str(tmp_path / "t.csv"), "--genes", "g*", "--maximize"]
    words += ["quality", "--minimize", "cost", "--evaluations", "60", "--seeds", "1", "--json"]
    two = ["--strategy", "nsga2", "--strategy", "nsga2 population=4"]
    found = json.loads(CliRunner().invoke(cli.app, [*words, *two, "--quiet"]).stdout)
    ratios = {r["strategy"]: r["hypervolume_ratio"] for r in found["means"]}
    assert ratios.keys() == {"nsga2", "nsga2 population=4"} and len({*ratios.values()}) == 2
    one = [*words, "--strategy", "nsga2", "--set", "population=4", "--quiet"]
    (mean,) = json.loads(CliRunner().invoke(cli.app, one).stdout)["means"]
    assert mean["hypervolume_ratio"] == ratios["nsga2 population=4"]
    with pytest.raises(InvalidArgument, match="--set goes with --strategy"):
        CliRunner().invoke(cli.app, [*words, "--set", "population=4"], catch_exceptions=False)
    with pytest.raises(InvalidArgument, match="nsga2 has no setting 'size'"):
        search.get("nsga2 size=3")
    with pytest.raises(InvalidArgument, match="a setting of a strategy is NAME=VALUE, got 'big'"):
        search.get("nsga2 big")


@pytest.mark.slow
def test_on_a_published_table_all_beat_random() -> None:
    path = SHARED / "nasbench_macro.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: published tables are not shipped")
    pytest.importorskip("torch")
    asked_for: dict[str, Any] = {"genes": ["l*"], "maximize": "mean_acc", "minimize": "flops"}
    table = table_room.read(pd.read_csv(path), **asked_for)
    many = table_room.strategies(
        table, names=["random", "nsga2", "weighted", "rl"], evaluations=[200, 500], seeds=3
    )
    one = table_room.strategies(table, names=["surrogate"], evaluations=[100], seeds=1)
    share = {
        (m["strategy"], m["evaluations"]): m["hypervolume_ratio"]
        for m in many["means"] + one["means"]
    }
    assert share["nsga2", 200] > 0.97 and share["nsga2", 500] > 0.99
    assert share["weighted", 500] > 0.97
    assert share["rl", 500] > share["random", 500]
    assert share["surrogate", 100] > 0.98


# -- strategies that see a model -------------------------------------------------------------------


def modelled(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"names": ["random"], "evaluations": [40], "seeds": 2}
    return model.strategies_on_a_model(read(frame), **settings | more)


def noisy(seed: int = 0) -> pd.DataFrame:
    """The grid with a cost that a model of the genes can but roughly tell."""
    frame = grid()
    rng = np.random.default_rng(seed)
    return frame.assign(cost=frame.cost * rng.normal(1, 0.1, len(frame)))


@pytest.mark.slow
class TestOnAModel:
    def test_a_model_that_knows_leaves_nothing_to_regret(self) -> None:
        found = modelled(grid(), names=["nsga2", "random"], evaluations=[60, 30])
        assert found["model"]["taught"] == 122 and found["model"]["searched"] == 121
        assert found["model"]["quality_rmse"] < 0.1 > found["model"]["cost_rmse"]
        assert [x["quantile"] for x in found["limits"]] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
        assert len(found["rows"]) == 2 * 5 * (2 * 2 + 1)
        assert len(found["means"]) == 5 * (2 * 2 + 1)
        best = [r for r in found["rows"] if r["strategy"] == model.ALL_ROWS]
        # Costs are whole numbers and limits lie between them: a hair decides nothing.
        assert all(r["regret"] == 0 and r["meets"] and r["tried"] == 1 for r in best)
        assert {x["limit"] % 1 for x in found["limits"]} == {0.5}
        assert {r["evaluations"] for r in best} == {121}
        # Strategies see a part: they have something to regret, and less of it with more judged.
        mean = {
            (name, n): np.mean(
                [
                    m["regret"]
                    for m in found["means"]
                    if (m["strategy"], m["evaluations"]) == (name, n)
                ]
            )
            for name in ("nsga2", "random")
            for n in (30, 60)
        }
        assert 0 <= mean["random", 60] < mean["random", 30] < 10
        blind = np.mean([x["blind_regret"] for x in found["limits"]])
        assert mean["random", 30] < blind

    def test_what_is_handed_in_is_scored_by_the_truth_of_rows_that_did_not_teach(self) -> None:
        frame = noisy()
        table = read(frame)
        found = modelled(frame, seeds=3, names=["random", "weighted"], chances=[0.5])
        truth = {(float(q), float(c)) for q, c in table.values}
        for r in found["rows"]:
            held = np.random.default_rng(r["seed"]).permutation(243)[122:]
            quality, cost = table.values[held].T
            assert (cost <= r["limit"]).mean() == pytest.approx(r["quantile"], abs=0.01)
            assert (r["quality"], r["cost"]) in truth and r["cost"] in cost
            assert r["meets"] == (r["cost"] <= r["limit"])
            assert r["overstep"] == pytest.approx(max(r["cost"] - r["limit"], 0))
            allowed = cost <= max(r["limit"], r["cost"])
            assert r["regret"] == pytest.approx(quality[allowed].max() - r["quality"]) and (
                r["regret"] >= 0
            )
            assert (r["tried"] == 1) == r["meets"]
            if r["meets"]:
                assert r["tried_regret"] == r["regret"]
        assert any(not r["meets"] for r in found["rows"])
        for m in found["means"]:
            rows = [
                r
                for r in found["rows"]
                if all(r[k] == m[k] for k in ("strategy", "evaluations", "quantile", "chance"))
            ]
            assert m["seeds"] == len(rows) == 3
            assert m["regret"] == pytest.approx(np.mean([r["regret"] for r in rows]))
            assert m["worst"] == max(r["regret"] for r in rows)
            assert m["misses"] == sum(not r["meets"] for r in rows)
            assert (m["overstep"] is None) == (m["misses"] == 0)

    def test_strategies_are_told_only_what_the_model_says(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other truths in the rows that are searched change nothing but the score."""
        walked: list[Any] = []
        walk = model.walk

        def seen(*args: Any) -> table_room.Walked:
            walked.append(walk(*args))
            return walked[-1]

        monkeypatch.setattr(model, "walk", seen)
        frame = noisy()
        held = np.random.default_rng(0).permutation(243)[122:]
        changed = frame.copy()
        changed.loc[held, ["quality", "cost"]] = frame.loc[held[::-1], ["quality", "cost"]].values
        first = modelled(frame, names=["nsga2"], seeds=1)
        second = modelled(changed, names=["nsga2"], seeds=1)
        assert np.array_equal(walked[0].rows, walked[1].rows)
        assert first["rows"] != second["rows"]

    def test_a_surer_choice_misses_less(self) -> None:
        found = modelled(noisy(), names=["random"], seeds=6, evaluations=[60], chances=[0.5, 0.95])
        missed = {
            c: sum(m["misses"] for m in found["means"] if m["chance"] == c) for c in (0.5, 0.95)
        }
        assert missed[0.95] < missed[0.5] / 2

    def test_what_cannot_keep_a_limit_hands_in_the_likeliest(self) -> None:
        space = read(grid(3, 2)).space
        values = np.column_stack([np.arange(9.0), np.arange(9.0) + 1])
        half = model._Half(table_room.Table(space, values), values, np.ones((9, 2)))
        judged = np.array([8, 5, 6])
        assert half.order(judged, 2.0, 0.5).tolist() == [5, 6, 8]
        assert half.order(judged, 7.0, 0.5).tolist() == [6, 5, 8]
        assert half.order(judged, 7.0, 0.7).tolist() == [5, 6, 8]
        scored = half.scored(judged, 2.0, 0.5)
        assert scored["tried"] is None and scored["tried_regret"] is None
        # It costs 6, and the best that costs 6 is itself: overstepping is told, and earns nothing.
        assert scored["regret"] == 0 and scored["overstep"] == 4 and not scored["meets"]

    def test_genes_may_be_words(self) -> None:
        frame = grid().assign(g0=lambda f: [("a", "b", "c")[v] for v in f.g0])
        assert modelled(frame, seeds=1)["model"]["quality_spearman"] > 0.95

    def test_equal_seeds_are_equal(self) -> None:
        assert modelled(noisy(), names=["nsga2"]) == modelled(noisy(), names=["nsga2"])

    def test_bad_questions_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="between 0 and 1, got 1"):
            modelled(grid(), share=1.0)
        with pytest.raises(NotEnoughData, match="leaves 2 to fit on and 241 to search"):
            modelled(grid(), share=0.01)
        with pytest.raises(InvalidArgument, match="limits: 1 or more, got 0"):
            modelled(grid(), limits=0)
        with pytest.raises(InvalidArgument, match="chance lies between 0 and 1, got 1"):
            modelled(grid(), chances=[1.0])
        with pytest.raises(InvalidArgument, match="evaluations 200: the table holds 121"):
            modelled(grid(), evaluations=[200])

    def test_the_command(self, tmp_path: Path) -> None:
        grid().to_csv(tmp_path / "t.csv", index=False)
        words = [
            "benchmark",
            "search",
            str(tmp_path / "t.csv"),
            "--genes",
            "g*",
            "--maximize",
            "quality",
            "--minimize",
            "cost",
            "--strategy",
            "random",
            "--evaluations",
            "40",
            "--seeds",
            "2",
            "--limits",
            "3",
        ]
        share = ["--model-share", "0.5", "--chance", "0.5", "--chance", "0.9"]
        told = CliRunner().invoke(cli.app, [*words, *share, "--json", "--quiet"])
        assert told.exit_code == 0, told.output
        found = json.loads(told.stdout)
        assert len(found["limits"]) == 3 and len(found["rows"]) == 2 * 2 * 3 * 2
        text = CliRunner().invoke(cli.app, [*words, *share])
        assert "best row" in text.stdout and "all rows" in text.stdout
        refused = CliRunner().invoke(cli.app, words)
        assert refused.exit_code != 0 and isinstance(refused.exception, InvalidArgument)


@pytest.mark.slow
def test_on_a_published_table_a_model_guides_nearly_as_well_as_the_truth() -> None:
    path = SHARED / "accel_nasbench.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: published tables are not shipped")
    found = model.strategies_on_a_model(
        table_room.read(
            pd.read_csv(path), genes=["block*"], maximize="val_top1", minimize="latency_vck190_mean"
        ),
        names=["random", "weighted"],
        evaluations=[200],
        seeds=3,
    )
    mean: dict[str, list[float]] = {}
    for m in found["means"]:
        mean.setdefault(m["strategy"], []).append(m["regret"])
    regret = {name: float(np.mean(values)) for name, values in mean.items()}
    blind = float(np.mean([x["blind_regret"] for x in found["limits"]]))
    assert found["model"]["quality_spearman"] > 0.98
    assert regret[model.ALL_ROWS] < 0.5  # points of top-1
    assert regret[model.ALL_ROWS] < regret["random"] < blind / 3
    assert regret["weighted"] < blind / 3
