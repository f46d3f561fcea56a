"""Small trainings on one worker and on two: how much sooner two are done. Printed, never asserted.

    python -m tools.bench.cluster --trainings 20 --epochs 30

The same trainings run in this process, in one process of `--workers` and in two, started before the
clock is; the order changes from round to round. What two workers can gain is bounded by what the
computer has left: so two bare processes at once stand beside it, and the load while each line ran.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])

import numpy as np  # noqa: E402
import standin_tasks as tasks  # noqa: E402

from phonenas.data.images import held_out  # noqa: E402
from phonenas.data.images.image_set import ImageSet  # noqa: E402
from phonenas.search.cluster.workers import Processes, Serial, Workers  # noqa: E402
from phonenas.search.training.recipe import recipe  # noqa: E402

NETWORK = "r1_k3_s11_e1_i8_o8 r2_k3_s22_e3_i8_o16_se0.25 head32 classes10 res16"
SPIN = "import time\nt = time.process_time()\nwhile time.process_time() - t < 4: pass\n"


def busy_s() -> float:
    """Seconds of all processors that anybody computed, since the start of the computer."""
    words = Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:]
    idle = int(words[3]) + int(words[4])
    return (sum(map(int, words)) - idle) / os.sysconf("SC_CLK_TCK")


def room() -> float:
    """How much two processes that only compute get done beside one: 2 on a quiet computer."""

    def taken_s(processes: int) -> float:
        began = time.perf_counter()
        spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
        for process in spinning:
            process.wait()
        return time.perf_counter() - began

    alone_s = taken_s(1)
    return 2 * alone_s / taken_s(2)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    words.add_argument("--trainings", type=int, default=20)
    words.add_argument("--epochs", type=int, default=30)
    words.add_argument("--rounds", type=int, default=3)
    asked = words.parse_args()
    chance = np.random.default_rng(0)
    images, held = held_out(
        ImageSet.of(
            chance.integers(0, 256, (400, 16, 16, 3), np.uint8), chance.integers(0, 10, 400)
        ),
        0.2,
    )
    told = recipe("small", epochs=asked.epochs, batch=32).settings
    taken: dict[str, list[float]] = {"this process": [], "1 worker": [], "2 workers": []}
    kinds: dict[str, Callable[[], Workers]] = {
        "this process": Serial,
        "1 worker": lambda: Processes(1),
        "2 workers": lambda: Processes(2),
    }
    weights: dict[str, Any] = {}
    for number in range(asked.rounds):
        order = list(kinds) if number % 2 == 0 else list(kinds)[::-1]
        for kind in order:
            with tempfile.TemporaryDirectory() as folder, kinds[kind]() as workers:
                # Both workers are up and have torch before the clock starts.
                workers.map(
                    tasks.train_small, [(folder, n, NETWORK, told, images, held) for n in range(2)]
                )
                before, began = busy_s(), time.perf_counter()
                found = workers.map(
                    tasks.train_small,
                    [(folder, n, NETWORK, told, images, held) for n in range(asked.trainings)],
                )
                seconds = time.perf_counter() - began
                load = (busy_s() - before) / seconds
            taken[kind].append(seconds)
            weights[kind] = [t.weights for t in found]
            print(f"round {number + 1}  {kind:13} {seconds:7.1f} s  {load:.2f} processors busy")
    same = all(
        np.array_equal(a[name], b[name])
        for kind in ("1 worker", "2 workers")
        for a, b in zip(weights["this process"], weights[kind], strict=True)
        for name in a
    )
    median = {kind: statistics.median(times) for kind, times in taken.items()}
    print(f"{asked.trainings} trainings of {asked.epochs} epochs, medians of {asked.rounds} rounds")
    for kind, seconds in median.items():
        print(f"  {kind:13} {seconds:7.1f} s  {seconds / asked.trainings:6.2f} s each")
    print(f"  1 → 2 workers: {median['1 worker'] / median['2 workers']:.2f} times as fast")
    print(f"  two bare processes at once: {room():.2f}; {os.cpu_count()} processors")
    print(f"  weights equal to the bit: {same}")


if __name__ == "__main__":
    main()
