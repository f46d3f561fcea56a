"""Random networks of a space on a device, in one precision: predicted beside measured.

    python -m tools.bench.held_out --db runs/int8.db --precision int8 [--device local]
        [--space mnasnet] [--operators 200] [--held-out 24]

gives the commands that a user would give: operators and 20 random networks are measured and a
model is fitted; then, in a later job, other random networks are measured, of which the model knows
nothing, and `phonenas compare` sets prediction beside measurement. What the store holds is not
measured again. With `--like` the model starts from the device's own other precision, which the
store must hold, and from so few `--measurements`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from phonenas import space

from .known import said

_SEED = 2_026  # of the held-out networks; a profile draws its own with 0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--device", default="local")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--space", default="mnasnet")
    parser.add_argument("--operators", type=int, default=200)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--like")
    parser.add_argument("--measurements", type=int, default=70)
    parser.add_argument("--held-out", type=int, default=24)
    given = parser.parse_args()
    given.db.parent.mkdir(parents=True, exist_ok=True)
    where = ["--device", given.device, "--precision", given.precision, "--db", str(given.db)]
    searched = space.get(given.space)
    drawn = searched.sample(np.random.default_rng(_SEED), given.held_out)
    networks = [str(searched.decode(genome)) for genome in drawn]
    named = [word for network in networks for word in ("--network", network)]
    few = ["--operators", str(given.operators), "--networks", str(given.networks)]
    source = ["--like", given.like] if given.like else []
    if given.like:
        few = [*source, "--measurements", str(given.measurements)]
        few += ["--networks", str(given.networks)]
    for words in (
        ["profile", *where, "--space", given.space, *few],
        ["fit", *where, *source],
        ["profile", *where, *named],
    ):
        print(said(words).stdout, flush=True)
    compared = json.loads(said(["compare", *networks, *where, "--json", "--quiet"]).stdout)
    for device in compared["devices"]:
        print(json.dumps(device["score"]))


if __name__ == "__main__":
    main()
