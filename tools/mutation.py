"""How many small errors put into the code on purpose the tests notice: a mutation score.

`pip install cosmic-ray` into an environment of its own, then

    python -m tools.mutation --cosmic-ray PATH/bin/cosmic-ray [--rooms pareto store] [--sample 200]

cosmic-ray names the errors (another operator, a constant one off, a negated condition, `break` for
`continue`). Each is put alone into a copy of the checkout, and a fork of this process runs the
room's tests on it. An error that no test notices survives: it is printed as a diff. Errors that
change no behaviour (annotations, imports for a type checker, numbers and formats in the text of a
message) are left out and counted. `tools/mutation_equivalent.toml` names survivors that change
nothing that anybody can see, each with its reason.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tools.house import import_graph, module_name

ROOT = Path(__file__).resolve().parents[1]
_TESTS = "tests/search/validation/test_"

#: Modules, and the tests that must notice an error in them, as pytest takes them.
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pareto": (("search/pareto.py",), ("tests/search/test_pareto.py",)),
    "reward": (("search/strategies/reward.py",), ("tests/search/strategies/test_reward.py",)),
    "calibration": (
        ("latency_model/calibration.py",),
        ("tests/latency_model/test_calibration.py",),
    ),
    "intervals": (("latency_model/metrics.py",), ("tests/latency_model/test_metrics.py",)),
    "timing": (("data/measurement.py",), ("tests/data/test_measurement.py",)),
    "drift_filter": (
        ("devices/measuring/rejection.py",),
        ("tests/devices/measuring/test_rejection.py",),
    ),
    "verdicts": (
        ("devices/measuring/protocol.py", "search/validation/validate.py"),
        (
            "tests/devices/measuring/test_protocol.py",
            f"{_TESTS}target_verdict.py",
            f"{_TESTS}validate.py",
            f"{_TESTS}partial.py",
        ),
    ),
    "store": (
        ("data/store/store.py", "data/store/rows.py", "data/store/schema.py"),
        (
            "tests/data/store/test_schema.py",
            "tests/data/store/test_rows.py",
            "tests/data/store/test_store.py",
            "tests/data/store/test_order.py",
            "-k",  # not those with processes of their own, or whole models
            "not (two_processes or read_only_medium or export or clock_that_was_wrong)",
        ),
    ),
    "checkpoints": (("search/checkpoint.py",), ("tests/search/test_checkpoint.py",)),
}
_EQUIVALENT = Path(__file__).with_name("mutation_equivalent.toml")
# Run by cosmic-ray's own interpreter: the errors of modules, or the code that some of them make.
_PLAN = """
import json, sys
from pathlib import Path
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
asked = json.load(sys.stdin)
for name in asked.get("modules", ()):
    tree = get_ast_from_path(Path(name))
    for kind in sorted(plugins.operator_names()):
        operator = plugins.get_operator(kind)
        if operator.arguments():
            continue
        places = [p for n in ast_nodes(tree) for p in operator().mutation_positions(n)]
        for number, (start, end) in enumerate(places):
            try:  # it makes nothing of `except package.Name`, and fails
                kind.endswith("ExceptionReplacer") and mutate_code(
                    Path(name).read_text(), operator(), number
                )
            except AttributeError:
                continue
            print(json.dumps([name, kind, number, *start, *end]))
for name, kind, number, *_ in asked.get("errors", ()):
    source = Path(name).read_text()
    print(json.dumps(mutate_code(source, plugins.get_operator(kind)(), number)))
"""


@dataclass(frozen=True)
class Score:
    """What became of one room's errors.

    Args:
        room: Its name in `ROOMS`.
        planned: How many there are.
        silent: How many of them change no behaviour, and are left out.
        errors: How many were put in, one at a time.
        survivors: Diffs that no test noticed, of errors that change something.
        explained: How many survivors change nothing that anybody can see.
    """

    room: str
    planned: int
    silent: int
    errors: int
    survivors: tuple[str, ...]
    explained: int

    @property
    def score(self) -> float:
        """Share of errors that tests notice, those that change nothing left out, in [0, 1]."""
        counted = self.errors - self.explained
        return 1 - len(self.survivors) / counted if counted else 1.0


def examine(room: str, cosmic_ray: str, sample: int, seed: int) -> Score:
    """Put errors into a room's modules, one at a time, and run its tests on each.

    Args:
        room: Of `ROOMS`.
        cosmic_ray: The program; its interpreter lies beside it.
        sample: At most so many errors, drawn at random; 0 for all.
        seed: Of the draw.
    Raises:
        SystemExit: The tests fail without any error.
    """
    modules, tests = ROOMS[room]
    sys.dont_write_bytecode = False  # of all but the mutated module
    python = str(Path(cosmic_ray).with_name("python"))
    equivalent = tomllib.loads(_EQUIVALENT.read_text()).get(room, {})
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        copy = Path(name) / "copy"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "runs", "dist", "*.egg-info", ".*_cache", "__pycache__"
        )
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        shared = ROOT.parent / "shared"
        if shared.is_dir():
            (Path(name) / "shared").symlink_to(shared)
        planned = list(_ask(python, copy, {"modules": modules}))
        silent = {m: _silent((copy / m).read_text()) for m in modules}
        chosen = [e for e in planned if _counts(e[1], tuple(e[3:7]), silent[e[0]])]
        left_out = len(planned) - len(chosen)
        if 0 < sample < len(chosen):
            chosen = random.Random(seed).sample(chosen, sample)
        sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
        for _ in range(2):  # the second time with what the first one loaded
            began = time.monotonic()
            if _run(copy, tests, 600.0):
                raise SystemExit(f"the tests of {room} fail without any error: {' '.join(tests)}")
            limit_s = 3 * (time.monotonic() - began) + 10
            _load(copy, modules)
        survivors, explained = [], 0
        for error, code in zip(chosen, _ask(python, copy, {"errors": chosen}), strict=True):
            path = copy / error[0]
            plain = path.read_text()
            path.write_text(code)
            for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                stale.unlink()
            noticed = _run(copy, tests, limit_s)
            path.write_text(plain)
            if noticed:
                continue
            diff = "\n".join(
                difflib.unified_diff(
                    plain.split("\n"), code.split("\n"), error[0], error[1], lineterm="", n=1
                )
            )
            if _reason(diff, equivalent):
                explained += 1
                continue
            survivors.append(diff)
            print(diff, flush=True)
    return Score(room, len(planned), left_out, len(chosen), tuple(survivors), explained)


def _ask(python: str, copy: Path, asked: dict[str, Any]) -> Iterator[Any]:
    """What cosmic-ray says, a value a line."""
    done = subprocess.run(
        [python, "-c", _PLAN], cwd=copy, input=json.dumps(asked), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"cosmic-ray fails: {done.stderr[-2000:]}")
    yield from map(json.loads, done.stdout.splitlines())


def _load(copy: Path, modules: Sequence[str]) -> None:
    """Import what the tests did, for the forks to come; not what depends on the modules."""
    graph, named = import_graph(), {module_name(ROOT / m) for m in modules}
    before: set[str] = set()
    while before != named:
        before = set(named)
        named |= {m for m, others in graph.items() if others & named and m != "phonenas"}
        named |= {m for m in graph if any(m.startswith(f"{n}.") for n in named)}
    for name in json.loads((copy.parent / "loaded.json").read_text()):
        ours = name in graph or not name.startswith(("phonenas", "tests", "conftest", "fakes"))
        if ours and name not in named:
            with suppress(Exception), warnings.catch_warnings(action="ignore"):
                importlib.import_module(name)


def _run(copy: Path, tests: Sequence[str], limit_s: float) -> int:
    """0 if the tests pass in a fork of this process; they end with the first that fails."""
    import pytest

    pid = os.fork()
    if pid == 0:
        os.setpgrp()
        sink = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(sink, descriptor)
        os.chdir(copy)
        options = "-x -q --assert=plain -p no:cacheprovider -p no:xdist"
        options += f" --basetemp={copy.parent / 'temporary'}"
        code = 1
        try:
            code = int(pytest.main([*options.split(), *tests]))
            (copy.parent / "loaded.json").write_text(json.dumps(list(sys.modules)))
        finally:
            os._exit(code)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        status = 1
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # also what the tests left
    if status == 1:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return status


def _silent(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Places of a module at which an error changes no behaviour, each from and to (line, column).

    Annotations of functions and variables, which nothing evaluates; imports for a type checker;
    what a message prints.
    """
    nodes: list[ast.expr | ast.If] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.arg(annotation=found) | ast.FunctionDef(returns=found) if found:
                nodes.append(found)
            case ast.AnnAssign(annotation=found) if "Meta" not in ast.dump(found):
                nodes.append(found)
            case ast.JoinedStr():
                nodes.append(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                nodes.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in nodes]


def _counts(kind: str, place: tuple[int, ...], silent: Sequence[Any]) -> bool:
    """Whether an error is one of behaviour; without its decorator no dataclass can be made."""
    start, end = place[:2], place[2:]
    return "RemoveDecorator" not in kind and not any(a <= start and end <= b for a, b in silent)


def _reason(diff: str, equivalent: dict[str, str]) -> str:
    """Why a survivor changes nothing that anybody can see; "" if that is not known."""
    changed = [x[1:].strip() for x in diff.split("\n")[2:] if x[:1] == "+"]
    return next((why for part, why in equivalent.items() if any(part in x for x in changed)), "")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cosmic-ray", default="cosmic-ray", help="the program's path")
    parser.add_argument("--rooms", nargs="*", default=sorted(ROOMS), choices=sorted(ROOMS))
    parser.add_argument("--sample", type=int, default=0, help="errors a room; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    program = shutil.which(given.cosmic_ray)
    if program is None:
        raise SystemExit(f"{given.cosmic_ray} is not installed:  pip install cosmic-ray")
    scores = []
    # Each room in a process of its own: what is loaded for one is under examination in another.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for room in given.rooms:
            print(f"## {room}", flush=True)
            score = pool.submit(examine, room, program, given.sample, given.seed).result()
            scores.append(score)
            print(f"## {room}: {score.score:.1%} of {score.errors}", flush=True)
    print(f"\n{'room':<14}{'planned':>8}{'silent':>8}{'tried':>8}{'survive':>9}", end="")
    print(f"{'explained':>11}{'score':>8}")
    for s in scores:
        print(f"{s.room:<14}{s.planned:>8}{s.silent:>8}{s.errors:>8}", end="")
        print(f"{len(s.survivors):>9}{s.explained:>11}{s.score:>8.1%}")


if __name__ == "__main__":
    main()
