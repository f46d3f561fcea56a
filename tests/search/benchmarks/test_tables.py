"""The bench of tables: what it runs, what it leaves, and the table that it writes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas import search
from phonenas.search.benchmarks.table import Table
from phonenas.search.benchmarks.table_space import TableSpace
from tools.bench import problems, tables

MARKS = "<!-- tools.bench.tables begins -->", "<!-- tools.bench.tables ends -->"


def small() -> Table:
    codes = np.stack(np.meshgrid(*[range(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    values = np.column_stack([codes[:, 0] + 0.1 * codes[:, 1], 1.0 + codes.sum(axis=1)])
    decisions = {f"g{i}": ("a", "b", "c") for i in range(4)}
    return Table(TableSpace(decisions, codes.astype(np.int8)), values)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(problems.PROBLEMS, "small", small)
    monkeypatch.setattr(tables, "PROBLEMS", problems.PROBLEMS)


def test_a_bench_goes_on_where_it_stopped(named: None, tmp_path: Path) -> None:
    into = tmp_path / "runs" / "t.jsonl"
    tables.compare(["small"], ["random"], [10, 20], 2, into, False)
    lines = into.read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]
    shares = json.loads(lines[0])["shares"]
    assert set(shares) == {"10", "20"} and 0 < shares["10"] <= shares["20"] <= 1
    tables.compare(["small"], ["random"], [10, 20], 3, into, False)
    assert into.read_text().splitlines()[:2] == lines
    assert len(into.read_text().splitlines()) == 3
    # A budget beyond the table's 81 rows is left out.
    tables.compare(["small"], ["random"], [20, 2000], 3, into, False)
    assert len(into.read_text().splitlines()) == 3


def row(which: str, seed: int, share: float) -> dict[str, Any]:
    return {"problem": "macro flops", "search": which, "seed": seed, "shares": {"200": share}}


def test_the_page_holds_means_errors_and_the_best(tmp_path: Path) -> None:
    into = tmp_path / "t.jsonl"
    rows = [row("nsga2", s, x) for s, x in enumerate((0.98, 0.99))]
    rows += [row("random", s, x) for s, x in enumerate((0.90, 0.92))]
    into.write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = tables.page_of(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n", tables.read_rows(into))
    # Mean 0.985; deviation 0.01/√2, over √2 seeds: 0.005.
    assert "| macro flops | 200 | 2 | **98.50 ± 0.50** | 91.00 ± 1.00 |" in text
    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")
    again = tables.page_of(text, tables.read_rows(into))
    assert again == text
    with pytest.raises(ValueError, match="no line"):
        tables.page_of("no marks", {})


def test_the_last_line_of_a_case_counts(tmp_path: Path) -> None:
    into = tmp_path / "t.jsonl"
    into.write_text("".join(json.dumps(row("nsga2", 0, x)) + "\n" for x in (0.1, 0.9)))
    (only,) = tables.read_rows(into).values()
    assert only["shares"] == {"200": 0.9}


def test_options_named_and_numbered_anew_are_the_same_problem() -> None:
    before = small()
    after = problems.permuted(before, 3)
    assert after.hypervolume() == before.hypervolume()
    assert not np.array_equal(after.space.genomes, before.space.genomes)
    assert after.space.option_counts.tolist() == [3, 3, 3, 3]
    assert len(np.unique(after.space.genomes, axis=0)) == 81
    # What was alike stays alike, gene by gene.
    for gene in range(4):
        same = before.space.genomes[:, gene] == before.space.genomes[0, gene]
        assert len(set(after.space.genomes[same, gene].tolist())) == 1


@pytest.mark.parametrize("name", ["pymoo NSGA-II", "Optuna NSGA-II", "Optuna TPE"])
def test_peers_walk_tables(name: str) -> None:
    if name.startswith("Optuna"):
        pytest.importorskip("optuna")
    peers = importlib.import_module("tools.bench.peers")
    first, again = (problems.shares(small(), peers.PEERS[name](1), [10, 20]) for _ in range(2))
    assert first == again and 0 < first[0] <= first[1] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fatal", "epistasis", "ties", "valley"])
def test_no_trap_makes_the_surrogate_worse_than_chance(name: str) -> None:
    problem = problems.problem(f"made {name}")
    shares = {
        which: np.mean([problems.shares(problem, search.get(which, s), [120]) for s in range(3)])
        for which in ("surrogate", "random")
    }
    assert shares["surrogate"] > shares["random"]


@pytest.mark.slow
def test_a_space_of_ours_has_an_exact_front() -> None:
    problem = problems.problem("mnasnet pixel4")
    assert isinstance(problem, problems.AdditiveProblem)
    (share,) = problems.shares(problem, search.get("nsga2", 0), [300])
    (blind,) = problems.shares(problem, search.get("random", 0), [300])
    assert 0.5 < blind < share < 1
