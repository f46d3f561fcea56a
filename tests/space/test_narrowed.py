"""Spaces narrowed by hand, by conditions that their names hold."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import space
from phonenas.space import NASBenchMacro, SearchSpace
from phonenas.space.errors import InvalidArgument, NotInSpace
from phonenas.space.narrowed import ListedSpace, narrow
from phonenas.testing import SpaceContract

MACRO = NASBenchMacro()


class TestNarrowed(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return narrow(TinySpace(resolution=32), [], ["block1_e=4", "block2_k=3"])


class TestListed(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return ListedSpace(MACRO, MACRO.sample(np.random.default_rng(7), 60), "listed")


def test_what_is_fixed_stays_and_what_is_excluded_goes() -> None:
    small = space.get("nasbench-macro l0=mb3_k3 l1!=identity l2=identity,mb6_k5")
    assert small.name == "nasbench-macro l0=mb3_k3 l1!=identity l2=identity,mb6_k5"
    assert small.decisions["l0"] == ("mb3_k3",)
    assert small.decisions["l1"] == ("mb3_k3", "mb6_k5")
    assert small.decisions["l2"] == ("identity", "mb6_k5")
    assert small.decisions["l3"] == MACRO.decisions["l3"]
    assert small.size == 1 * 2 * 2 * 3**5 and small.whole == small.base
    assert space.get(small.name).decisions == small.decisions
    for genome in small.sample(np.random.default_rng(0), 20):
        network = small.decode(genome)
        assert network == MACRO.decode(
            [{"identity": 0, "mb3_k3": 1, "mb6_k5": 2}[v] for v in small.values(genome).values()]
        )
        assert network in small
    assert MACRO.decode([0] * 8) not in small
    with pytest.raises(NotInSpace):
        small.encode(MACRO.decode([0] * 8))


def test_the_end_of_a_name_is_the_gene_of_each_block() -> None:
    small = space.get("mnasnet filters=0.75,1 op!=conv block2_kernel=5")
    assert {small.decisions[f"block{b}_filters"] for b in range(1, 8)} == {(0.75, 1.0)}
    assert {small.decisions[f"block{b}_op"] for b in range(1, 8)} == {
        ("dsconv", "mbconv3", "mbconv6")
    }
    assert small.decisions["block2_kernel"] == (5,) and small.decisions["block1_kernel"] == (3, 5)
    assert all(o.kind != "conv" for o in small.operators())


@pytest.mark.fault(
    "A search space is narrowed by a gene or an option that it does not have.",
    "`has no gene 'l9'. …`; `has no option 'mb3' …`; `none of its options: …`; "
    "`is GENE=VALUE, as block3_kernel=5`",
    "Take one of the names that the message lists.",
)
@pytest.mark.parametrize(
    ("fix", "exclude", "says"),
    [
        (["l9=identity"], [], "nasbench-macro has no gene 'l9'. Known: l0, l1"),
        (["l1=mb3"], [], "l1 has no option 'mb3' in nasbench-macro. Did you mean 'mb3_k3'"),
        ([], ["l1=identity,mb3_k3,mb6_k5"], "leaves l1 of nasbench-macro none of its options"),
        (["l1=identity", "l1=mb3_k3"], [], "leaves l1 of nasbench-macro none of its options"),
        (["l1"], [], "is GENE=VALUE, as block3_kernel=5, got 'l1'"),
        (["l1="], [], "is GENE=VALUE, as block3_kernel=5, got 'l1='"),
        (["l1!=mb3_k3"], [], "is GENE=VALUE, as block3_kernel=5, got 'l1!=mb3_k3'"),
        ([], ["l1!=mb3_k3"], "is GENE=VALUE, as block3_kernel=5, got 'l1!=mb3_k3'"),
    ],
)
def test_what_is_not_there_is_refused(fix: list[str], exclude: list[str], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        narrow(MACRO, fix, exclude)


def test_a_space_narrowed_twice_is_reopened_by_its_name() -> None:
    twice = narrow(space.get("mnasnet op!=conv"), ["block3_kernel=5"], ["block3_skip=none"])
    assert twice.name == "mnasnet op!=conv block3_kernel=5 block3_skip!=none"
    again = space.get(twice.name)
    assert again.name == twice.name and again.decisions == twice.decisions


def test_a_listed_space_holds_its_rows_alone() -> None:
    genomes = np.array([[0, 0, 1, 2, 0, 0, 0, 0], [1] * 8, [2] * 8], np.int8)
    listed = ListedSpace(MACRO, genomes, "three")
    assert listed.size == 3 and listed.decisions["l7"] == ("identity", "mb3_k3", "mb6_k5")
    assert (
        listed.decode(listed.genomes[1])
        == MACRO.decode([1] * 8)
        == listed.decode(listed.encode(MACRO.decode([1] * 8)))
    )
    assert MACRO.decode([0] * 8) not in listed
    rng = np.random.default_rng(0)
    known = {g.tobytes() for g in listed.genomes}
    assert {g.tobytes() for g in listed.sample(rng, 50)} == known
    for genome, mutant in zip(listed.genomes, listed.mutate(listed.genomes, rng), strict=True):
        assert mutant.tobytes() in known - {genome.tobytes()}
    near = listed.within(np.array([[1, 1, 0, 0, 1, 1, 1, 2], [2, 2, 1, 0, 2, 2, 2, 2]], np.int8))
    assert [listed.decode(g) for g in near] == [MACRO.decode([1] * 8), MACRO.decode([2] * 8)]
    assert listed.within(listed.genomes) is listed.genomes
    fewer = narrow(listed, ["l7=mb3_k3,mb6_k5"])
    assert fewer.size == 2 and fewer.name == "three l7=mb3_k3,mb6_k5"
    assert fewer.decode(fewer.sample(rng, 1)) in listed and fewer.example() in listed
    with pytest.raises(InvalidArgument, match="no network of three is left by l0=identity l1=mb6"):
        narrow(listed, ["l0=identity", "l1=mb6_k5"])
    with pytest.raises(InvalidArgument, match="it holds one network"):
        alone = narrow(listed, ["l0=identity"])
        alone.mutate(alone.sample(rng, 1), rng)
