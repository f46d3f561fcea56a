"""The contract of a search space, asked of every space; and what each one says of itself."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phonenas import space
from phonenas.space import AdditiveTable, Architecture, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument, NotInSpace, UnknownName
from phonenas.space.spaces.mnasnet import layer_count, width

NAMES = space.names()
FLAT = "mnasnet-flat"
TABLE = Path(__file__).parents[3] / "shared" / "data" / "accel_nasbench.csv"


@cache
def at_64(name: str) -> SearchSpace:
    return space.get(name, 64)


# The largest space has slow tests of its own size, and one that is quick.
@pytest.fixture(params=[n if n != FLAT else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def any_space(request: pytest.FixtureRequest) -> SearchSpace:
    return at_64(request.param)


def draw(any_space: SearchSpace, n: int, seed: int = 0) -> Genomes:
    return any_space.sample(np.random.default_rng(seed), n)


# -- genomes and networks ----------------------------------------------------------------------


def test_samples_lie_within_the_options(any_space: SearchSpace) -> None:
    genomes = draw(any_space, 500)
    assert genomes.shape == (500, len(any_space.decisions))
    assert genomes.dtype == np.int8
    assert (genomes >= 0).all()
    assert (genomes < any_space.option_counts).all()
    assert any_space.sample(np.random.default_rng(0), 0).shape == (0, len(any_space.decisions))


def test_samples_cover_options_evenly(any_space: SearchSpace) -> None:
    n = 12_000
    genomes = draw(any_space, n)
    for column, count in enumerate(any_space.option_counts):
        share = np.bincount(genomes[:, column], minlength=count) / n
        # Five standard deviations: about one false alarm in 10,000 runs, and the seed is fixed.
        limit = 5 * np.sqrt((1 / count) * (1 - 1 / count) / n)
        assert np.abs(share - 1 / count).max() < limit


def test_encode_is_the_inverse_of_decode(any_space: SearchSpace) -> None:
    genomes = draw(any_space, 30)
    for genome, key in zip(genomes, any_space.keys(genomes), strict=True):
        network = any_space.decode(genome)
        again = any_space.encode(network)
        assert any_space.decode(again) == network
        assert any_space.keys(again) == [key]
    assert network in any_space


def test_a_network_survives_its_text(any_space: SearchSpace) -> None:
    for genome in draw(any_space, 30):
        network = any_space.decode(genome)
        assert Architecture.parse(str(network)) == network
    assert Architecture.parse(str(network)) in any_space


def test_equal_seeds_give_equal_populations(any_space: SearchSpace) -> None:
    one, two = draw(any_space, 50, seed=3), draw(any_space, 50, seed=3)
    assert (one == two).all()
    assert (one != draw(any_space, 50, seed=4)).any()
    mutants = [any_space.mutate(one, np.random.default_rng(5)) for _ in range(2)]
    assert (mutants[0] == mutants[1]).all()


@pytest.mark.parametrize("rate", [None, 1e-9, 0.3, 1.0])
def test_mutants_stay_in_the_space_and_are_other_networks(
    any_space: SearchSpace, rate: float | None
) -> None:
    parents = draw(any_space, 300)
    kept = parents.copy()
    mutants = any_space.mutate(parents, np.random.default_rng(1), rate)
    assert (parents == kept).all()
    any_space.check(mutants)
    assert (any_space.identities(mutants) != any_space.identities(parents)).any(axis=1).all()
    for parent, mutant in zip(parents[:20], mutants[:20], strict=True):
        assert any_space.decode(parent).operators() != any_space.decode(mutant).operators()


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, float("nan")])
def test_mutation_rates_that_are_none(any_space: SearchSpace, rate: float) -> None:
    with pytest.raises(InvalidArgument, match="mutation rate"):
        any_space.mutate(draw(any_space, 2), np.random.default_rng(0), rate)


def test_identities_are_equal_where_the_networks_are(any_space: SearchSpace) -> None:
    """Single steps, many of which do not show in the network."""
    rng = np.random.default_rng(2)
    same = 0
    for genome in draw(any_space, 250):
        other = genome.copy()
        gene = rng.integers(len(genome))
        other[gene] = (other[gene] + 1) % any_space.option_counts[gene]
        one, two = any_space.decode(genome), any_space.decode(other)
        alike = one.operators() == two.operators()
        assert alike == (any_space.keys(genome) == any_space.keys(other))
        assert alike == (one == two)
        same += alike
    if any_space.name not in ("accel-nasbench", "nasbench-macro"):  # all of whose choices show
        assert 0 < same < 250


def test_check_names_the_row_and_the_decision(any_space: SearchSpace) -> None:
    genomes = draw(any_space, 5).astype(np.int64)
    for gene in (0, len(any_space.decisions) - 1):
        for wrong in (-1, any_space.option_counts[gene], 300):
            broken = genomes.copy()
            broken[3, gene] = wrong
            name = list(any_space.decisions)[gene]
            with pytest.raises(InvalidArgument, match=f"genome 3: {name} is {wrong}, "):
                any_space.check(broken)


def test_check_refuses_other_shapes_and_kinds(any_space: SearchSpace) -> None:
    genes = len(any_space.decisions)
    for wrong in (
        np.zeros((2, genes + 1), np.int8),
        np.zeros((2, genes)),
        np.zeros((1, 2, genes), int),
        np.zeros((2, genes), bool),
        [],
        "abc",
        None,
    ):
        with pytest.raises(InvalidArgument, match=rf"shape \(n, {genes}\)"):
            any_space.check(wrong)  # type: ignore[arg-type]
    assert any_space.check([0] * genes).shape == (1, genes)
    with pytest.raises(InvalidArgument, match=r"one genome .* got 2"):
        any_space.decode(draw(any_space, 2))


def test_size_is_the_product_of_the_options(any_space: SearchSpace) -> None:
    assert any_space.size == prod(len(o) for o in any_space.decisions.values())
    assert any_space.option_counts.tolist() == [len(o) for o in any_space.decisions.values()]


# -- operators and sums over them --------------------------------------------------------------


def test_random_networks_hold_only_listed_operators(any_space: SearchSpace) -> None:
    listed = set(any_space.operators())
    assert len(listed) == len(any_space.operators())
    assert len({o.key for o in listed}) == len(listed)
    for genome in draw(any_space, 150):
        assert set(any_space.decode(genome).operators()) <= listed


def test_each_listed_operator_is_in_some_network(any_space: SearchSpace) -> None:
    columns = {name: i for i, name in enumerate(any_space.decisions)}
    missing = set(any_space.operators()) - {any_space.stem}
    for part, choices in zip(any_space.parts, any_space.part_layers, strict=True):
        options = product(*(range(len(any_space.decisions[d])) for d in part.decisions))
        for chosen, layers in zip(options, choices, strict=True):
            if missing.isdisjoint(layers):
                continue
            genome = np.zeros(len(columns), np.int8)
            genome[[columns[d] for d in part.decisions]] = chosen
            found = any_space.decode(genome).operators()
            assert set(layers) <= set(found)
            missing.difference_update(found)
    assert not missing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_additive_tables_equal_the_sum_over_operators(any_space: SearchSpace, seed: int) -> None:
    genomes = draw(any_space, 60, seed)
    networks = [any_space.decode(g) for g in genomes]
    noise = dict(
        zip(
            any_space.operators(),
            np.random.default_rng(seed).random((len(any_space.operators()), 3)).tolist(),
            strict=True,
        )
    )
    assert AdditiveTable(any_space, lambda o: o.macs)(genomes).tolist() == [
        n.macs for n in networks
    ]
    assert AdditiveTable(any_space, lambda o: o.params, 7)(genomes).tolist() == [
        n.params + 7 for n in networks
    ]
    several = AdditiveTable(any_space, noise.__getitem__, (1.0, 2.0, 3.0))(genomes)
    expected = [np.sum([noise[o] for o in n.operators()], axis=0) for n in networks]
    np.testing.assert_allclose(several, np.array(expected) + np.array([1, 2, 3]), rtol=1e-12)


def test_additive_tables_take_any_number_of_genomes(any_space: SearchSpace) -> None:
    macs = AdditiveTable(any_space, lambda o: o.macs)
    assert macs(draw(any_space, 0)).shape == (0,)
    many = draw(any_space, 20_000)  # more than one chunk
    values = macs(many)
    assert values[[0, 8191, 8192, 19_999]].tolist() == [
        any_space.decode(many[i]).macs for i in (0, 8191, 8192, 19_999)
    ]
    assert macs(many[5]).tolist() == [values[5]]


# -- what is not in a space --------------------------------------------------------------------


def test_networks_of_another_resolution_are_not_in_it(any_space: SearchSpace) -> None:
    network = any_space.decode(draw(any_space, 1)[0])
    other = network.with_resolution(96)
    assert network in any_space
    assert other not in any_space
    assert space.get(any_space.name, 96).decode(draw(any_space, 1)[0]) == other
    with pytest.raises(NotInSpace, match="64"):
        any_space.encode(other)


@pytest.mark.timeout(30)
def test_what_almost_fits_is_refused_at_once(any_space: SearchSpace) -> None:
    """All parts but the last fit, in very many alike ways."""
    for genome in draw(any_space, 10):
        network = any_space.decode(genome)
        last = network.blocks[-1].out_channels
        longer = Architecture.parse(f"{network} r1_k3_s11_e6_i{last}_o16")
        assert longer not in any_space
        with pytest.raises(NotInSpace, match=r"block 7|block 6|head"):
            any_space.encode(longer)
    assert "mnasnet-a1" not in any_space
    assert None not in any_space


def test_a_foreign_kernel_names_its_part() -> None:
    mnasnet = at_64("mnasnet")
    text = str(mnasnet.decode(np.zeros(42, np.int8))).split(" ")
    text[2] = text[2].replace("k3", "k7")
    with pytest.raises(NotInSpace, match="block 3"):
        mnasnet.encode(Architecture.parse(" ".join(text)))


@pytest.mark.parametrize("resolution", [0, -1, 7, 5000, 224.5, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_resolutions_that_cannot_be_taken(name: str, resolution: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{resolution} px cannot be taken"):
        space.get(name, resolution)  # type: ignore[arg-type]


def test_an_unknown_space_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'mnasnet'"):
        space.get("mnasnets")


# -- MnasNet -----------------------------------------------------------------------------------


def test_mnasnet_has_the_papers_432_choices_a_block() -> None:
    mnasnet = at_64("mnasnet")
    assert mnasnet.size == 432**7
    for block in range(7):
        own = [len(o) for n, o in mnasnet.decisions.items() if n.startswith(f"block{block + 1}_")]
        assert prod(own) == 432


def test_mnasnet_has_fewer_distinct_networks_than_genomes() -> None:
    first = at_64("mnasnet").part_layers[0]
    assert len(first) == 432
    assert len(set(first)) < 432
    genomes = np.zeros((432, 42), np.int8)
    genomes[:, :6] = list(product(*map(range, (4, 2, 2, 3, 3, 3))))
    # Filters of block 1 reach block 2's input, and 0.75 and 1.0 give one width there too.
    assert len(set(at_64("mnasnet").keys(genomes))) == len(set(first))


def test_mnasnet_rounds_filters_and_keeps_a_layer() -> None:
    assert [width(0, f) for f in (0.75, 1.0, 1.25)] == [16, 16, 24]
    assert [width(1, f) for f in (0.75, 1.0, 1.25)] == [24, 24, 32]
    assert [width(6, f) for f in (0.75, 1.0, 1.25)] == [240, 320, 400]
    assert [layer_count(0, d) for d in (-1, 0, 1)] == [1, 1, 2]
    assert [layer_count(3, d) for d in (-1, 0, 1)] == [3, 4, 5]


def test_mobilenet_v2_lies_near_the_middle_of_mnasnet() -> None:
    """The skeleton is MobileNetV2's, whose first expansion of 1 is the dsconv."""
    network = space.zoo.network("mobilenet-v2", resolution=64)
    genome = at_64("mnasnet").encode(network)
    assert at_64("mnasnet").decode(genome).operators() == network.operators()
    values = at_64("mnasnet").values(genome)
    assert values["block1_op"] == "dsconv"
    assert values["block4_filters"] == 1.0
    assert values["block4_layers"] == 0


@pytest.mark.slow
def test_the_flat_space_contains_the_factorised_one() -> None:
    flat, mnasnet = at_64("mnasnet-flat"), at_64("mnasnet")
    for genome in draw(mnasnet, 30):
        network = mnasnet.decode(genome)
        assert network in flat
        assert flat.decode(flat.encode(network)).operators() == network.operators()
    assert any(flat.decode(g) not in mnasnet for g in draw(flat, 5))
    assert len(flat.decisions) == 7 + 24 * 5
    assert flat.size == 3**7 * 144**24
    assert set(mnasnet.operators()) <= set(flat.operators())


def test_the_flat_space_is_a_space() -> None:
    flat = at_64(FLAT)
    genomes = draw(flat, 8)
    macs = AdditiveTable(flat, lambda o: o.macs)(genomes)
    for genome, key, expected in zip(genomes, flat.keys(genomes), macs, strict=True):
        network = flat.decode(genome)
        assert flat.keys(flat.encode(network)) == [key]
        assert Architecture.parse(str(network)) == network and network.macs == expected
    mutants = flat.mutate(genomes, np.random.default_rng(1))
    assert (flat.identities(mutants) != flat.identities(genomes)).any(axis=1).all()
    last = network.blocks[-1].out_channels
    with pytest.raises(NotInSpace):
        flat.encode(Architecture.parse(f"{network} r1_k3_s11_e6_i{last}_o16"))


# -- Accel-NASBench ----------------------------------------------------------------------------


def test_accel_nasbench_option_counts() -> None:
    accel = at_64("accel-nasbench")
    counts = {n: len(o) for n, o in accel.decisions.items()}
    for block in range(7):
        own = [counts[f"block{block}_{n}"] for n in ("e", "k", "l", "se")]
        assert own == ([3, 2, 4, 2] if block == 5 else [3, 2, 3, 2])
    assert accel.size == 36**6 * 48


@pytest.mark.skipif(
    not TABLE.exists(), reason="the Accel-NASBench table does not lie in ../shared/data"
)
def test_rows_of_the_published_table_are_genomes() -> None:
    accel = space.get("accel-nasbench", 224)
    table = pd.read_csv(TABLE)
    genomes = np.empty((len(table), len(accel.decisions)), np.int8)
    for column, (name, options) in enumerate(accel.decisions.items()):
        found = table[name].tolist()
        assert set(found) == set(options), name
        genomes[:, column] = [options.index(value) for value in found]
    params = AdditiveTable(accel, lambda o: o.params)(genomes)
    # Every count to the table's six digits: skeleton, squeeze widths and head are theirs.
    np.testing.assert_allclose(params, table["params_M"] * 1e6, rtol=0, atol=5)
    assert np.corrcoef(params, table["params_M"])[0, 1] > 0.999999
    macs = AdditiveTable(accel, lambda o: o.macs)(genomes)
    assert np.corrcoef(macs, table["macs_M"])[0, 1] > 0.99
