"""`make bench-tables`: what share of the exact front each search finds, with how many evaluations.

    python -m tools.bench.tables --into runs/tables.jsonl [--problem ...] [--search ...]
    python -m tools.bench.tables --into runs/tables.jsonl --page docs/search.md

Each (problem, search, seed) is a line of the file; what stands there is not run again, so that a
stopped bench goes on and several may work at once. With --page nothing is run: the table of means
and standard errors is written between its two marks. `--permuted` names and numbers the options
anew, by chance.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from phonenas import search  # noqa: E402
from phonenas.data.files import write_atomic  # noqa: E402
from phonenas.search.benchmarks.table import Table  # noqa: E402
from tools.bench.peers import PEERS  # noqa: E402
from tools.bench.problems import PROBLEMS, permuted, problem, shares  # noqa: E402

__all__ = ["compare", "page_of", "read_rows"]

BUDGETS = (100, 200, 500, 2000)
SLOW = {"Optuna TPE": 500, "surrogate": 2000}  # evaluations beyond which a search takes too long
_BEGIN, _END = "<!-- tools.bench.tables begins -->", "<!-- tools.bench.tables ends -->"
Row = dict[str, Any]
Key = tuple[str, str, int]


def _searches() -> list[str]:
    ours = [n for n in search.names() if n != "rl" or importlib.util.find_spec("torch")]
    return [*ours, *(PEERS if importlib.util.find_spec("optuna") else ())]


def read_rows(path: Path) -> dict[Key, Row]:
    """What a file of results holds, by problem, search and seed; the last line of each counts."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {(r["problem"], r["search"], r["seed"]): r for r in rows}


def compare(
    problems: list[str], searches: list[str], budgets: list[int], seeds: int, into: Path, anew: bool
) -> None:
    """Run what the file does not hold yet, and append it line by line."""
    into.parent.mkdir(parents=True, exist_ok=True)
    for name in problems:
        base = problem(name)
        for seed in range(seeds):
            case = permuted(base, seed) if anew and isinstance(base, Table) else base
            label = f"{name}, permuted" if anew else name
            for which in searches:
                most = SLOW.get(which, max(budgets))
                room = len(base) if isinstance(base, Table) else most
                wanted = [b for b in budgets if b <= min(most, room)]
                known = read_rows(into).get((label, which, seed), {"shares": {}})["shares"]
                if not wanted or all(str(b) in known for b in wanted):
                    continue
                made = PEERS[which](seed) if which in PEERS else search.get(which, seed)
                began = time.perf_counter()
                found = shares(case, made, wanted)
                row = {
                    "problem": label,
                    "search": which,
                    "seed": seed,
                    "seconds": round(time.perf_counter() - began, 2),
                    "shares": known | {str(b): s for b, s in zip(wanted, found, strict=True)},
                }
                with into.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def means_of(rows: dict[Key, Row]) -> dict[tuple[str, int, str], tuple[float, float, int]]:
    """Mean, standard error and number of seeds, by problem, budget and search."""
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for (name, which, _), row in rows.items():
        for budget, share in row["shares"].items():
            found[name, int(budget), which].append(share)
    return {
        key: (float(np.mean(s)), float(np.std(s, ddof=1) / len(s) ** 0.5) if s[1:] else 0.0, len(s))
        for key, s in found.items()
    }


def table_of(rows: dict[Key, Row]) -> list[str]:
    """A Markdown table: a line for each problem and budget, a column for each search.

    A cell is the mean share in per cent and its standard error. Bold is the best, and whatever
    lies less than the two standard errors, added in squares, below it.
    """
    means = means_of(rows)
    order = [n for n in _searches() if any(key[2] == n for key in means)]
    lines = [
        "| problem | evaluations | seeds | " + " | ".join(order) + " |",
        "|---|---:|---:|" + "---:|" * len(order),
    ]
    names = [n for p in PROBLEMS for n in (p, f"{p}, permuted")]
    for name in names:
        for budget in sorted({b for n, b, _ in means if n == name}):
            here = {w: means[name, budget, w] for w in order if (name, budget, w) in means}
            best = max(here.values())
            cells = []
            for which in order:
                if which not in here:
                    cells.append("")
                    continue
                mean, error, _ = here[which]
                text = f"{100 * mean:.2f} ± {100 * error:.2f}"
                near = best[0] - mean <= (best[1] ** 2 + error**2) ** 0.5
                cells.append(f"**{text}**" if near else text)
            seeds = sorted({n for _, _, n in here.values()})
            counts = "–".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
            lines.append(f"| {name} | {budget:,} | {counts} | " + " | ".join(cells) + " |")
    return lines


def page_of(text: str, rows: dict[Key, Row]) -> str:
    """A document with the table between its marks.

    Raises:
        ValueError: The marks are missing.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the document has no line {_BEGIN} and no line {_END} after it")
    return "\n".join([before + begin, *table_of(rows), end + after])


def main() -> None:
    words = argparse.ArgumentParser(description="shares of exact fronts, by search and budget")
    words.add_argument("--into", type=Path, required=True, help="results, a JSON line each")
    words.add_argument("--problem", choices=[*PROBLEMS], action="append", help="default: all")
    words.add_argument("--search", choices=_searches(), action="append", help="default: all")
    words.add_argument("--evaluations", type=int, action="append", help=f"default: {BUDGETS}")
    words.add_argument("--seeds", type=int, default=10)
    words.add_argument("--permuted", action="store_true", help="options named and numbered anew")
    words.add_argument("--page", type=Path, help="run nothing; write the table into this document")
    asked = words.parse_args()
    if asked.page:
        write_atomic(asked.page, page_of(asked.page.read_text(), read_rows(asked.into)))
        return
    compare(
        asked.problem or [*PROBLEMS],
        asked.search or _searches(),
        asked.evaluations or list(BUDGETS),
        asked.seeds,
        asked.into,
        asked.permuted,
    )
    print("\n".join(table_of(read_rows(asked.into))))


if __name__ == "__main__":
    main()
