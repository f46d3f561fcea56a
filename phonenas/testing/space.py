"""What every search space must do."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas.space import SearchSpace

__all__ = ["SpaceContract"]


class SpaceContract:
    """A space samples, mutates, decodes and encodes consistently."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError

    def test_decode_and_encode_are_inverse(self, space: SearchSpace) -> None:
        for genome in space.sample(np.random.default_rng(0), 20):
            network = space.decode(genome)
            assert space.decode(space.encode(network)) == network
            assert network in space

    def test_a_mutant_is_in_the_space_and_differs(self, space: SearchSpace) -> None:
        rng = np.random.default_rng(1)
        before = space.sample(rng, 200)
        after = space.check(space.mutate(before, rng))
        assert not (space.identities(before) == space.identities(after)).all(axis=1).any()

    def test_equal_identities_mean_equal_networks(self, space: SearchSpace) -> None:
        genomes = space.sample(np.random.default_rng(2), 300)
        networks = [space.decode(g).operators() for g in genomes]
        assert len(set(networks)) == len(set(space.keys(genomes)))

    def test_operators_are_complete(self, space: SearchSpace) -> None:
        known = set(space.operators())
        for genome in space.sample(np.random.default_rng(3), 50):
            assert set(space.decode(genome).operators()) <= known
