"""A torch module as a NETWORK: exported for the time of a command, refused in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from phonenas import cli

Run = Callable[..., tuple[int, str, str]]
SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    def forward(self, x):
        return self.body(x).mean((2, 3), keepdim=True)

class Two(nn.Module):
    def forward(self, image, ids):
        return image * ids.float().sum()

class Needs(nn.Module):
    def __init__(self, width):
        super().__init__()

class Stuck(nn.Module):
    def forward(self, x):
        raise RuntimeError("no way on")

net = Net()
number = 3
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    (tmp_path / "own_networks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", ["Net", "net"])
def test_a_module_is_shown(name: str, run: Run) -> None:
    code, out, err = run("show", f"own_networks:{name}", "--resolution", "64", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["macs"] == 16 * 27 * 64 * 64
    assert [o["key"].split("_")[0] for o in shown["operators"]] == ["conv", "global"]


def test_several_inputs_take_shapes(run: Run, tmp_path: Path) -> None:
    import numpy as np

    code, _, err = run("show", "own_networks:Two", "--shape", "image=1,3,8,8")
    assert code == 2 and "the shape of ids is not known" in err and "--shape ids=" in err
    np.savez(tmp_path / "in.npz", image=np.zeros((1, 3, 8, 8), "f4"), ids=np.ones(4, "i8"))
    code, out, err = run("show", "own_networks:Two", "--input", str(tmp_path / "in.npz"))
    assert code == 0 and "mul" in out, err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_networks:None_", "cannot be imported"),
        ("no_such_module:Net", "cannot be imported"),
        ("own_networks:number", "no torch module when it is called"),
        ("own_networks:Needs", "without arguments"),
        ("own_networks:Stuck", "torch cannot export own_networks:Stuck"),
    ],
)
def test_what_is_no_module_is_one_line(name: str, words: str, run: Run) -> None:
    code, out, err = run("show", name)
    assert code in (1, 2) and out == "" and words in err and err.count("\n") == 1
