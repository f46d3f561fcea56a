"""Each space of the field, from a profile of a simulated phone to a search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from phonenas import space
from phonenas.space import zoo
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

# Space, published networks that are in it, distinct operators at 224 px.
FIELD = [
    ("ofa-mbv3", (), 93),
    ("ofa-mbv3-w1.0", (), 93),
    ("fbnet", ("fbnet-c",), 74),
    ("mobilenet-v4", ("mobilenet-v4-conv-medium",), 156),
    ("efficientnet-edge", ("efficientnet-edge-s",), 63),
]


@pytest.mark.parametrize(("name", "networks", "operators"), FIELD)
def test_published_networks_are_in_their_space(
    name: str, networks: tuple[str, ...], operators: int
) -> None:
    searched = space.get(name)
    assert len(searched.operators()) == operators
    for network in networks:
        assert zoo.network(network) in searched
        genome = searched.encode(zoo.network(network))
        assert searched.decode(genome).params == zoo.network(network).params


def test_once_for_all_s_layers_are_those_of_its_code() -> None:
    """The widest network: kernel 7, expansion 6, four layers in each stage."""
    searched = space.get("ofa-mbv3")
    most = dict.fromkeys(searched.decisions, 2) | {
        n: 8 for n in searched.decisions if "_layer" in n and not n.endswith("_layers")
    }
    network = searched.decode([most[n] for n in searched.decisions])
    assert len(network.operators()) == 23
    keys = [o.key for o in network.operators()]
    assert keys[1] == "dsconv_k3_s1_skip_112x112x24_24"
    assert keys[6] == "mbconv6_k7_s2_hse48_56x56x32_48"
    assert keys[10] == "mbconv6_k7_s2_hswish_28x28x48_96"
    assert keys[18] == "mbconv6_k7_s2_hse208_hswish_14x14x136_192"
    assert keys[22] == "head1152_hiddenplain1536_hswish_7x7x192_1000"


def test_a_block_string_longer_than_a_file_s_name_is_a_network(run: Run) -> None:
    deep = str(zoo.network("mobilenet-v4-conv-medium"))
    assert len(deep) > 255
    for text in (deep, deep.replace(" ", ",")):
        assert run.json("show", text)["params"] == 9_715_512


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, *_ in FIELD])
def test_a_search_on_a_simulated_phone(tmp_path: Path, name: str) -> None:
    (tmp_path / "devices.toml").write_text('[sim]\ntransport = "simulated"\n')

    def told(*words: str) -> Any:
        command = [sys.executable, "-m", "phonenas", *words]
        given = ("--device", "sim", "--db", "s.db", "--json")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [*command, *given],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    told("profile", "--quick", "--space", name)
    told("fit")
    searched = space.get(name)
    middle = searched.decode([int(c) // 2 for c in searched.option_counts])
    target = round(told("predict", str(middle))[0]["latency_ms"], 1)
    found = told(
        "search", "--space", name, "--target", f"{target}", "--evaluations", "300", "--out", "r"
    )
    assert found["evaluations"] == 300 and found["front"]
    assert all(candidate["latency_ms"] <= target for candidate in found["front"])
