"""Fine-tuning for int8, by the commands of a user: trainings of several seeds, and their table.

    python -m tools.bench.finetuning FOLDER --data cifar10.npz --network mnasnet-small --epochs 12
        [--seeds 3] [--resolution 32] [--finetune-epochs 2] [--read]

Each seed is a `phonenas train ... --quantise int8 --finetune always` into FOLDER/seed0, seed1 and
so on. What is finished is read, not trained again; with --read nothing is trained. The row holds
means over the seeds, each with its standard error, of the ONNX files on the test images. Below it
stands how many of them `--finetune auto` would have fine-tuned, by their held-out images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .known import said

__all__ = ["command", "main", "table"]

_LOSS = 0.01  # from which on `--finetune auto` fine-tunes
_HEAD = (
    "float32",
    "int8 after training",
    "fine-tuned",
    "change after training",
    "change fine-tuned",
    "decisions equal, after training",
    "fine-tuned",
)


def command(given: argparse.Namespace, seed: int) -> list[str]:
    """The words of the training of one seed."""
    words = ["train", given.network, "--resolution", str(given.resolution)]
    words += ["--data", str(given.data), "--recipe", "small", "--epochs", str(given.epochs)]
    words += ["--threads", "1", "--device", "cpu", "--export", "onnx"]
    words += ["--out", str(given.folder / f"seed{seed}"), "--quantise", "int8"]
    words += ["--finetune", "always", "--finetune-epochs", str(given.finetune_epochs)]
    return [*words, "--seed", str(seed)]


def table(cards: Sequence[dict[str, Any]]) -> str:
    """The row, in percent, and what `--finetune auto` would have done.

    Args:
        cards: The network.json of each seed, one or more.
    Raises:
        SystemExit: One has no fine-tuning in it.
    """
    rows, lost = [], 0
    for card in cards:
        found = card.get("finetuned")
        if not found or not found["not_kept"]:
            raise SystemExit(f"{card.get('network', 'a folder')}: it was not fine-tuned for int8")
        own, other = card["quantised"][0], found["not_kept"][0]
        after, before = (own, other) if found["kept"] else (other, own)
        whole = before["float_top1"]
        tops = [whole, before["top1"], after["top1"]]
        changes = [before["top1"] - whole, after["top1"] - whole]
        rows.append([*tops, *changes, before["agreeing"], after["agreeing"]])
        # A difference of shares is off by its last digits.
        lost += found["float_top1"] - found["before_top1"] > _LOSS + 1e-9
    values = 100 * np.array(rows)
    n = len(values)
    error = values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(_HEAD), np.nan)
    cells = [
        f"{mean:{'+' if 'change' in name else ''}.2f} ± {bar:.2f}"
        for name, mean, bar in zip(_HEAD, values.mean(0), error, strict=True)
    ]
    lines = [_HEAD, ["---"] * len(_HEAD), cells]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n--finetune auto would have fine-tuned {lost} of {n}"


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--finetune-epochs", type=int, default=2)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--read", action="store_true")
    given = parser.parse_args(words)
    cards = []
    for seed in range(given.seeds):
        file = given.folder / f"seed{seed}" / "network.json"
        if not file.exists():
            if given.read:
                raise SystemExit(f"{file} is not there: leave --read out to train it")
            if said(command(given, seed)).returncode:
                raise SystemExit(f"the training of seed {seed} failed")
        cards.append(json.loads(file.read_text(encoding="utf-8")))
    print(table(cards))


if __name__ == "__main__":
    main()
