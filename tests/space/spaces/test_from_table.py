"""The networks of a table as a space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phonenas import space
from phonenas.space import NASBenchMacro
from phonenas.space.errors import InvalidArgument, NotEnoughData, SettingsChanged, UnsupportedFormat
from phonenas.space.spaces import parted

MACRO = NASBenchMacro()
OWN = [
    "r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24 res32",
    "r1_k3_s11_e1_i32_o16 r1_k5_s22_e3_i16_o24 r3_k3_s11_e6_i24_o40 res32",
    "r1_k3_s11_conv_i32_o24_noskip r2_k3_s22_e4_i24_o40 res32",
]


def test_genes_are_those_of_the_space_that_holds_all(tmp_path: Path) -> None:
    genomes = np.array([[0, 1, 0, 1, 0, 1, 0, 1], [2] * 8, [2] * 8], np.int8)
    path = tmp_path / "t.csv"
    pd.DataFrame({"network": [str(MACRO.decode(g)) for g in genomes]}).to_csv(path, index=False)
    listed = space.get(f"table:{path}")
    assert list(listed.decisions) == [f"l{i}" for i in range(8)]
    assert listed.size == 2 and listed.decisions["l0"] == ("identity", "mb6_k5")
    assert listed.resolution_px == 32 and listed.whole.name == "nasbench-macro"
    assert space.get(listed.name, 32).name == listed.name
    with pytest.raises(InvalidArgument, match="holds networks at 32 px, not at 64 px"):
        space.get(f"table:{path}", 64)
    columns = pd.DataFrame(genomes, columns=list(MACRO.decisions))
    columns.to_csv(tmp_path / "genes.csv", index=False)
    by_genes = space.get(f"table:{tmp_path / 'genes.csv'}")
    assert {by_genes.decode(g) for g in by_genes.sample(np.random.default_rng(0), 20)} == {
        MACRO.decode(g) for g in genomes
    }


def test_words_of_a_files_name_are_no_conditions(tmp_path: Path) -> None:
    path = tmp_path / "kept k=3.csv"
    genomes = np.array([[0, 1, 0, 1, 0, 1, 0, 1], [2] * 8], np.int8)
    pd.DataFrame({"network": [str(MACRO.decode(g)) for g in genomes]}).to_csv(path, index=False)
    listed = space.get(f"table:{path}")
    assert listed.size == 2 and space.get(listed.name, 32).name == listed.name
    narrowed = space.get(f"{listed.name} l0=identity")
    assert narrowed.size == 1 and space.get(narrowed.name).name == narrowed.name
    assert parted(f"table:{path} l0=identity") == (f"table:{path}", ["l0=identity"])
    toml = tmp_path / "mine k=3.toml"
    assert parted(f"{toml} k=5")[1] == ["k=3.toml", "k=5"]
    toml.write_text("")
    assert parted(f"{toml}@0123456789ab k=5") == (f"{toml}@0123456789ab", ["k=5"])


@pytest.mark.slow
def test_networks_of_no_known_space_have_their_blocks_as_genes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"block_args": OWN, "top1": [0.1, 0.2, 0.3]}).to_csv(path, index=False)
    listed = space.get(f"table:{path}")
    assert listed.decisions == {
        "at16_1": ("r1_k3_s11_e1_i32_o16", "r1_k3_s11_conv_i32_o24"),
        "at16_2": ("r2_k3_s22_e6_i16_o24", "r1_k5_s22_e3_i16_o24", "r2_k3_s22_e4_i24_o40"),
        "at8_1": ("none", "r3_k3_s11_e6_i24_o40"),
        "head": ("8x24", "8x40"),
    }
    networks = [space.Architecture.parse(text) for text in OWN]
    for genome, network in zip(listed.genomes, networks, strict=True):
        assert listed.decode(genome).operators() == network.operators()
        assert listed.encode(network).tolist() == genome.tolist()
        assert set(network.operators()) <= set(listed.operators())
    macs = space.AdditiveTable(listed, lambda o: o.macs)(listed.genomes)
    assert macs.tolist() == [network.macs for network in networks]


@pytest.mark.fault(
    "The table of a search in its networks holds others when the search goes on.",
    "`holds other networks than before`",
    "Restore the table, or search again with another --out.",
)
def test_other_networks_are_another_space(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    texts = [str(MACRO.decode([i] * 8)) for i in range(3)]
    pd.DataFrame({"network": texts, "top1": [0.1, 0.2, 0.3]}).to_csv(path, index=False)
    name = space.get(f"table:{path}").name
    pd.DataFrame({"network": texts[::-1], "top1": [0.9, 0.2, 0.3]}).to_csv(path, index=False)
    assert space.get(name).name == name
    pd.DataFrame({"network": texts[:2]}).to_csv(path, index=False)
    with pytest.raises(SettingsChanged, match="holds other networks than before"):
        space.get(name)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ({"network": [OWN[0], "nothing"]}, UnsupportedFormat, "row 2: no network"),
        (
            {"network": [OWN[0], OWN[1].replace("res32", "res64")]},
            UnsupportedFormat,
            "the networks of one space have one input, stem, head and number of classes",
        ),
        ({"network": []}, NotEnoughData, "has no rows"),
        ({"name": ["a"]}, InvalidArgument, "neither a column of networks"),
    ],
)
def test_what_is_no_space_is_refused(
    tmp_path: Path, rows: dict[str, list[str]], error: type[Exception], says: str
) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(error, match=says):
        space.get(f"table:{path}")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        space.get(f"table:{tmp_path / 'none.csv'}")


@pytest.mark.slow
def test_more_blocks_at_a_place_than_a_gene_takes(tmp_path: Path) -> None:
    texts = [f"r1_k3_s11_e1_i32_o{8 * i} res32" for i in range(1, 130)]
    pd.DataFrame({"network": texts}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UnsupportedFormat, match="129 different blocks at at16_1, a gene takes 127"):
        space.get(f"table:{tmp_path / 't.csv'}")
