"""Networks that people know, on this computer: predicted beside measured, none used to fit.

    python -m tools.bench.known --db runs/known.db [--device local] [--out known.html]

gives the commands that a user would give: a few operators and kernels are measured with random
networks, the models are fitted, then the networks of the zoo are measured, and `phonenas compare`
sets them side by side. What the store holds is not measured again; `--stage` gives one step alone
(the measuring ones, fit and networks, on a quiet computer: some five minutes each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OPERATORS, KERNELS, RANDOM = 150, 350, 20
NETWORKS = (
    *("mnasnet-a1", "mnasnet-b1", "mnasnet-small", "mobilenet-v2", "single-path-nas"),
    *("proxylessnas-mobile", "proxylessnas-cpu", "proxylessnas-gpu"),
    *("mobilenet-v1", "mobilenet-v3-large", "mobilenet-v3-small", "efficientnet-b0"),
    *("mobilenet-v3-large-minimalistic", "mobilenet-v3-small-minimalistic", "efficientnet-lite0"),
    *("fbnet-c", "ghostnet", "mixnet-s", "mobilenet-v4-conv-small", "mobilenet-v4-conv-medium"),
    *("shufflenet-v2", "shufflenet-v2-x1.5", "squeezenet-1.0", "squeezenet-1.1", "resnet-18"),
    *("regnet-x-400mf", "regnet-y-400mf", "nasnet-a-mobile", "peleenet", "hardnet-39-ds"),
    *("dla-46-c", "condensenet-74"),
)
STAGES = ("profile", "fit", "networks", "compare")


def commands(db: Path, device: str, out: Path | None) -> dict[str, list[list[str]]]:
    """By stage, the words of each command behind `phonenas`."""
    where = ["--device", device, "--db", str(db)]
    named = [word for name in NETWORKS for word in ("--network", name)]
    few = ["--operators", str(OPERATORS), "--networks", str(RANDOM)]
    page = [] if out is None else ["--out", str(out)]
    return {
        "profile": [
            ["profile", *where, "--kernels", str(KERNELS), "--networks", str(RANDOM)],
            ["profile", *where, "--space", "mnasnet", *few],
        ],
        "fit": [["fit", *where]],
        "networks": [["profile", *where, *named]],
        "compare": [["compare", *NETWORKS, *where, *page]],
    }


def said(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one command; its progress goes to stderr."""
    print(f"$ phonenas {' '.join(words)[:160]}", file=sys.stderr, flush=True)
    program = [sys.executable, "-m", "phonenas", *words]
    return subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, default=Path("runs/known.db"))
    parser.add_argument("--device", default="local")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", choices=STAGES)
    given = parser.parse_args()
    given.db.parent.mkdir(parents=True, exist_ok=True)
    for stage, steps in commands(given.db, given.device, given.out).items():
        if given.stage not in (None, stage):
            continue
        for words in steps:
            print(said(words).stdout, flush=True)
    if given.stage in (None, "compare"):
        (words,) = commands(given.db, given.device, None)["compare"]
        for device in json.loads(said([*words, "--json", "--quiet"]).stdout)["devices"]:
            print(json.dumps(device["score"]))


if __name__ == "__main__":
    main()
