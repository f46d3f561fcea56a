"""Regularised evolution as it was published, on the weighted product."""

from __future__ import annotations

from .weighted_product import WeightedProduct

__all__ = ["RegularisedEvolution"]


class RegularisedEvolution(WeightedProduct):
    """Aging evolution with a population of one size from the start.

    The population is filled with random networks. Then the best by reward of a sample of the
    living has a child, with another option in one gene, and the oldest dies, however good it is; a
    tenth of the population at a time, as of parallel workers. `weighted` is this with a
    population that begins small and grows, so that a few hundred evaluations see more generations.
    A child that was evaluated before takes further steps: here only distinct networks count.

    Args:
        seed: Of all chance.
        population: Networks alive, and random ones at first, ≥ 2.
        tournament: How many of the living a parent is the best of, ≥ 1.
        exponents: Of latency over target, at or below, and above it; ≤ 0.
    Raises:
        InvalidArgument: A number outside its range.
    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019
        (100 alive, samples of 25, the oldest dies); Tan et al., MnasNet, CVPR 2019, for the reward.
        A target for each tournament where none is given is ours, as in `WeightedProduct`.
    """

    name = "regularised"

    def sizes(self) -> tuple[int, int, int]:
        return self.population, max(1, self.population // 10), self.population
