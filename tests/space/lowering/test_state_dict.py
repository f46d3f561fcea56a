"""Weights that others trained with torch, loaded by shape and order; logits as theirs."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from phonenas import cli
from phonenas.space import zoo
from phonenas.space.errors import InvalidArgument, UnknownName, UnsupportedFormat
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.state_dict import folded_eps, load_state_dict

torch = pytest.importorskip("torch")
nn = torch.nn


def layer(cin: int, cout: int, k: int = 1, s: int = 1, groups: int = 1) -> list[Any]:
    return [
        nn.Conv2d(cin, cout, k, s, k // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, momentum=0.0003),
    ]


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, k: int, s: int, e: int) -> None:
        super().__init__()
        mid = cin * e
        self.skip = cin == cout and s == 1
        self.layers = nn.Sequential(
            *layer(cin, mid), nn.ReLU(), *layer(mid, mid, k, s, mid), nn.ReLU(), *layer(mid, cout)
        )

    def forward(self, x: Any) -> Any:
        return self.layers(x) + x if self.skip else self.layers(x)


class MnasNet(nn.Module):
    """As torchvision builds mnasnet1_0: BatchNorm eps 1e-5, names of its own."""

    def __init__(self) -> None:
        super().__init__()
        stacks = [
            (16, 24, 3, 2, 3, 3),
            (24, 40, 5, 2, 3, 3),
            (40, 80, 5, 2, 6, 3),
            (80, 96, 3, 1, 6, 2),
            (96, 192, 5, 2, 6, 4),
            (192, 320, 3, 1, 6, 1),
        ]
        parts: list[Any] = [*layer(3, 32, 3, 2), nn.ReLU(), *layer(32, 32, 3, 1, 32), nn.ReLU()]
        parts += layer(32, 16)
        for cin, cout, k, s, e, n in stacks:
            blocks = [Residual(cin, cout, k, s, e)]
            blocks += [Residual(cout, cout, k, 1, e) for _ in range(n - 1)]
            parts.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*parts, *layer(320, 1280), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.layers(x).mean([2, 3]))


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    model = MnasNet().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):  # small variances: the eps shows
            nn.init.uniform_(part.running_var, 1e-5, 2e-3)
            nn.init.normal_(part.running_mean, 0, 0.02)
            nn.init.uniform_(part.weight, 0.01, 0.05)
            nn.init.normal_(part.bias, 0, 0.1)
    return model


@pytest.mark.slow
def test_logits_are_theirs_with_their_eps(
    theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, network = tmp_path / "x.pth", zoo.network("mnasnet-b1", resolution=64)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, path)
    ours = load_state_dict(path, network)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted, found = theirs(x), ours(x)
        other = load_state_dict(path, network, eps=1e-3)(x)
    assert wanted.std() > 0.01
    assert float((found - wanted).abs().max()) < 1e-4
    assert float((other - wanted).abs().max()) > 1e-3
    # The exported file computes the same, though its BatchNorm is folded with another eps.
    model = to_onnx(network, weights=folded_eps(ours, 1e-5))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    told = session.run(None, {"input": x[:1].numpy()})[0]
    assert np.abs(told - wanted[:1].numpy()).max() < 1e-4
    out = tmp_path / "x.onnx"
    words = [str(network), "--weights", str(path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["phonenas", "export-network", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    told = session.run(None, {"input": x[:1].numpy()})[0]
    assert np.abs(told - wanted[:1].numpy()).max() < 1e-4


def test_other_weights_are_refused_by_name(theirs: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(theirs.state_dict(), path)
    with pytest.raises(InvalidArgument, match=r"its tensor \d+, layers\..*, has the shape \("):
        load_state_dict(path, zoo.network("mnasnet-a1"))
    state = dict(list(theirs.state_dict().items())[:-1])
    torch.save(state, path)
    with pytest.raises(InvalidArgument, match="holds 261 tensors, and .* has 262"):
        load_state_dict(path, zoo.network("mnasnet-b1"))


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/phonenas-test-evil"),))


def test_no_code_runs(theirs: Any, tmp_path: Path) -> None:
    network = zoo.network("mnasnet-b1")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Evil()}))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not a whole file")
    torch.save(theirs, tmp_path / "whole.pth")
    torch.save({"a": 3, "b": torch.zeros(3)}, tmp_path / "mixed.pth")
    for name in ("evil", "plain", "cut", "whole", "mixed"):
        with pytest.raises(UnsupportedFormat, match="torch.save"):
            load_state_dict(tmp_path / f"{name}.pth", network)
    assert not Path("/tmp/phonenas-test-evil").exists()
    with pytest.raises(UnknownName, match="no file"):
        load_state_dict(tmp_path / "none.pth", network)
