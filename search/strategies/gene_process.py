"""A Gaussian process over genes that are categories: no option has a place among the others.

The covariance of two networks is a sum of three parts: what each gene adds by itself, what each
pair of genes adds, and a product over all genes that falls with each gene in which they differ. How
much each gene, or each option, counts in each part follows from the marginal likelihood. So the
names and the order of options have no influence.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5;
Duvenaud et al., Additive Gaussian Processes, NIPS 2011 (orders of interaction, by Newton's
identities); Ru et al., CoCaBO, ICML 2020 (overlap of categories).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.gaussian_process import Posterior, Prior, misfit_and_slopes, optimise
from phonenas.space import Genomes

__all__ = ["GeneProcess", "one_hot"]

Floats = npt.NDArray[np.float64]
_CONSTANT = 5.0  # variance of the mean, in variances of the target
_JITTER = 1e-6
_PARTS = (1.0, 0.3, 0.5)  # expected variance of single genes, of pairs, of the product
_NOISE = 0.05  # expected, in variances of the target
_REACH = 2.0  # expected exponent of the product between networks that differ in every gene
_OPTIMISED_ON = 250  # rows at most


def one_hot(genomes: Genomes, counts: npt.NDArray[np.int64]) -> Floats:
    """A column for each option of each gene, (n, options): 1 where a network has it, else 0."""
    hot = np.zeros((len(genomes), int(counts.sum())))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    hot[np.arange(len(genomes))[:, None], genomes + first] = 1
    return hot


class GeneProcess:
    """Learns one number of networks from their genes.

    Args:
        counts: Options of each gene, (genes,).
        per_option: Whether each option has weights of its own, instead of each gene.
    """

    def __init__(self, counts: npt.NDArray[np.int64], *, per_option: bool) -> None:
        genes, options = len(counts), int(counts.sum())
        self._gene = np.repeat(np.arange(genes), counts)
        self._weight = np.arange(options) if per_option else self._gene
        k = self._weights = options if per_option else genes
        # Two options that differ add both of their weights to the exponent.
        reach = _REACH / genes / (1 + per_option)
        expected = np.concatenate([np.full(k, 1 / genes), np.full(k, reach), [*_PARTS, _NOISE]])
        deviation = np.concatenate([np.full(2 * k + 3, 1.0), [1.5]])
        deviation[2 * k : -1] = 1.5
        self._prior = Prior(np.log(expected), deviation, 4.0)
        self.hyperparameters: Floats = self._prior.mean.copy()

    def learn(self, hot: Floats, target: Floats, steps: int = 0) -> None:
        """Rest on these rows.

        Args:
            hot: As `one_hot` gives it, (n, options).
            target: What to learn, (n,), of any unit.
            steps: By how many the hyperparameters are optimised first.
        """
        self._mean, self._spread = float(target.mean()), float(target.std()) + 1e-12
        scaled = (target - self._mean) / self._spread
        if steps:
            rows = np.random.default_rng(len(hot)).permutation(len(hot))[:_OPTIMISED_ON]
            few, scores = hot[rows], scaled[rows]
            _, self.hyperparameters = optimise(
                lambda p: self._misfit(p, few, scores),
                self._prior,
                steps=steps,
                slopes=True,
                start=self.hyperparameters,
            )
        self._hot, noise = hot, np.exp(self.hyperparameters[-1])
        covariance = self._covariance(hot)
        covariance[np.diag_indices(len(hot))] += noise + _JITTER
        self._posterior = Posterior(covariance, scaled)

    def leave_one_out(self, target: Floats) -> tuple[Floats, Floats]:
        """Each row's target, given its own (n,), as all others predict it, and the deviation."""
        error, deviation = self._posterior.leave_one_out()
        return target - self._spread * error, self._spread * deviation

    def predict(self, hot: Floats) -> tuple[Floats, Floats]:
        """Expected target and deviation of a new observation, noise included, each (n,)."""
        across, p = self._covariance(hot), self.hyperparameters
        own = self._own(hot) + np.exp(p[-1])
        variance = np.maximum(self._posterior.variance(own, across), _JITTER)
        expected = self._mean + self._spread * self._posterior.mean(across)
        return expected, self._spread * np.sqrt(variance)

    def _unpacked(self, p: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights of options among single genes and pairs; in the product; of the three parts."""
        k, strength = self._weights, np.exp(p)
        return strength[:k][self._weight], strength[k : 2 * k][self._weight], strength[2 * k : -1]

    def _kernels(self, a: Floats, b: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
        """The three parts, each of variance 1 about, (n, m)."""
        single, product, _ = self._unpacked(p)
        alike = (a * single) @ b.T
        pairs = (alike**2 - (a * single**2) @ b.T) / 2
        far = (a @ product)[:, None] + (b @ product)[None] - 2 * (a * product) @ b.T
        return alike, pairs, np.exp(-far)

    def _covariance(self, a: Floats) -> Floats:
        """Of rows with those learned from, (n, m), noise not included."""
        parts = self._unpacked(self.hyperparameters)[2]
        kernels = self._kernels(a, self._hot, self.hyperparameters)
        total: Floats = _CONSTANT + sum(v * k for v, k in zip(parts, kernels, strict=True))
        return total

    def _own(self, a: Floats) -> Floats:
        """Variance of each row, (n,), noise not included."""
        single, _, parts = self._unpacked(self.hyperparameters)
        alike = a @ single
        pairs = (alike**2 - a @ single**2) / 2
        own: Floats = _CONSTANT + parts[0] * alike + parts[1] * pairs + parts[2]
        return own

    def _misfit(self, p: Floats, hot: Floats, target: Floats) -> tuple[float, Floats]:
        single, product, parts = self._unpacked(p)
        alike, pairs, near = self._kernels(hot, hot, p)
        total = _CONSTANT + parts[0] * alike + parts[1] * pairs + parts[2] * near
        total[np.diag_indices(len(hot))] += np.exp(p[-1]) + _JITTER
        value, pull = misfit_and_slopes(total, target)

        def within(weights: Floats) -> Floats:
            """Sum of the weights of all pairs of rows that share an option, (options,)."""
            shared: Floats = np.einsum("ij,ij->j", hot, weights @ hot)
            return shared

        joint = within(pull * (parts[0] + parts[1] * alike)) - parts[1] * single * within(pull)
        pulled = parts[2] * pull * near
        apart = within(pulled) - pulled.sum(axis=1) @ hot
        slopes = np.empty_like(p)
        k = self._weights
        slopes[:k] = np.bincount(self._weight, joint * single, k) / 2
        slopes[k : 2 * k] = np.bincount(self._weight, apart * product, k)
        slopes[2 * k : -1] = [
            v * (pull * c).sum() / 2 for v, c in zip(parts, (alike, pairs, near), strict=True)
        ]
        slopes[-1] = np.exp(p[-1]) * np.trace(pull) / 2
        return value, slopes
