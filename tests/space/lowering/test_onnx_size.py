"""The size of a file that was not written."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas import space
from phonenas.space import zoo
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.onnx_size import onnx_bytes


@pytest.mark.parametrize("name", space.names())
def test_it_is_that_of_the_file(name: str) -> None:
    searched = space.get(name)
    for genome in searched.sample(np.random.default_rng(3), 2):
        network = searched.decode(genome)
        assert onnx_bytes(network) == len(to_onnx(network).SerializeToString())


def test_known_networks_and_other_sizes() -> None:
    for network in (
        zoo.network("mnasnet-a1"),
        zoo.network("mobilenet-v3-small", 0.75, 96),
        space.Architecture.parse("r1_k3_s11_e1_i32_o16 res64"),
    ):
        assert onnx_bytes(network) == len(to_onnx(network, seed=4).SerializeToString())
