"""The table of `tools.bench.finetuning`, from folders of finished trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.bench import finetuning


def card(
    whole: float, before: float, after: float, *, kept: bool, held: float = 0.0
) -> dict[str, Any]:
    files = [
        {"top1": before, "float_top1": whole, "agreeing": 0.9},
        {"top1": after, "float_top1": whole, "agreeing": 0.8},
    ]
    own, other = files[::-1] if kept else files
    found = {"kept": kept, "float_top1": 0.6, "before_top1": 0.6 - held, "not_kept": [other]}
    return {"network": "n", "quantised": [own], "finetuned": found}


def test_the_table_has_means_and_what_auto_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the two files was kept. A loss of just a point calls for nothing."""
    cards = [
        card(0.5, 0.4, 0.45, kept=True, held=0.02),
        card(0.6, 0.6, 0.55, kept=False, held=0.01),
    ]
    for seed, content in enumerate(cards):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}/network.json").write_text(json.dumps(content))
    words = [str(tmp_path), "--data", "x.npz", "--network", "n", "--epochs", "3", "--read"]
    finetuning.main([*words, "--seeds", "2"])
    *_, row, auto = capsys.readouterr().out.splitlines()
    assert row == (
        "| 55.00 ± 5.00 | 50.00 ± 10.00 | 50.00 ± 5.00 | -5.00 ± 5.00 | -5.00 ± 0.00 "
        "| 90.00 ± 0.00 | 80.00 ± 0.00 |"
    )
    assert auto == "--finetune auto would have fine-tuned 1 of 2"
    with pytest.raises(SystemExit, match="seed2.network.json is not there"):
        finetuning.main([*words, "--seeds", "3"])
    with pytest.raises(SystemExit, match="n: it was not fine-tuned for int8"):
        finetuning.table([{"network": "n"}])
