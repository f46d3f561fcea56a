"""What 8 bits change of top-1: the published pairs, what is measured, and the estimator of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Accuracy, AccuracyEstimator, Surrogate
from phonenas.search.accuracy.cache import kept_rows
from phonenas.search.accuracy.quantisation.change import PUBLISHED, Change, published_change
from phonenas.search.accuracy.quantisation.quantised import InPrecisions, Quantised, in_precision
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument
from phonenas.testing import EstimatorContract


class TestQuantised(EstimatorContract):
    """As every estimator."""

    @pytest.fixture
    def estimator(self) -> AccuracyEstimator:
        return Quantised(Surrogate())

    def again(self, estimator: AccuracyEstimator) -> AccuracyEstimator:
        return Quantised(Surrogate())


def test_the_published_pairs() -> None:
    """Numbers by a calculation of their own."""
    change = published_change()
    assert (change.pairs, change.families) == (28, 6)
    assert change.growth == pytest.approx(0.03880, abs=1e-5)
    assert change.standard_error == pytest.approx(0.02050, abs=1e-5)
    assert change.within == pytest.approx(0.01351, abs=1e-5)
    assert "grow by 3.9% ± 2.1% of themselves, by 28 published pairs of 6 families" in str(change)


def test_a_family_that_was_left_out_lies_in_the_interval() -> None:
    off = []
    for family, pairs in PUBLISHED.items():
        rest = published_change(without=family)
        assert rest.families == 5
        growths = [(a - b) / (100 - a) for a, b in pairs]
        off += [abs(g - rest.growth) / rest.standard_error for g in growths]
    assert 0.85 <= np.mean(np.array(off) < 1.645) <= 0.97 and max(off) < 2.5


def test_errors_grow_by_their_share() -> None:
    change = published_change()
    top1, error = change.of(np.array([0.75, 0.5, np.nan]), np.array([0.01, 0.0, np.nan]))
    assert top1[:2] == pytest.approx([0.75 - 0.0388 * 0.25, 0.5 - 0.0388 * 0.5], abs=1e-4)
    assert error[0] == pytest.approx(np.hypot(1.0388 * 0.01, 0.0205 * 0.25), abs=1e-5)
    assert error[1] == pytest.approx(0.0205 * 0.5, abs=1e-5)
    assert np.isnan(top1[2]) and np.isnan(error[2])


def test_measured_changes_count_as_far_as_they_are_certain() -> None:
    """One of 10 % of the errors: certain, it is averaged by the variances within and between."""
    change = published_change()
    one = change.with_measured([Change(0.8, -0.02, 0.0)])
    within, between = 0.01351**2, 0.0205**2 - 0.01351**2
    share = between / (between + within)
    assert one.growth == pytest.approx(0.0388 + share * (0.1 - 0.0388), abs=1e-4)
    assert one.standard_error == pytest.approx(np.sqrt(share * within + within), abs=1e-5)
    vague = change.with_measured([Change(0.8, -0.02, 0.1)])
    assert abs(vague.growth - 0.0388) < 1e-3 and vague.standard_error > 0.0204
    many = change.with_measured([Change(0.8, 0.002, 0.001)] * 400)
    assert many.growth == pytest.approx(-0.01, abs=2e-4)
    assert many.standard_error == pytest.approx(0.0135, abs=2e-4) and many.measured == 400
    assert change.with_measured([]) == change and one.digest != change.digest
    assert "and 1 measured" in str(one)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Change(1.0, -0.1, 0.0), r"of one in \[0, 1\)"),
        (Change(0.5, -0.1, -0.1), "error ≥ 0"),
        (Change(0.7, -0.6, 0.01), "fell from 70.0% to 10.0% in int8.*calibration images"),
    ],
)
def test_no_change_of_that_kind(wrong: Change, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        published_change().with_measured([wrong])


def test_the_estimator_says_what_float32_has_and_the_change() -> None:
    space, base = TinySpace(), Surrogate()
    genomes = space.sample(np.random.default_rng(0), 20)
    small, whole = in_precision(base, "int8"), base.on(space)(genomes)
    found = small.on(space)(genomes)
    assert found.top1 == pytest.approx(whole.top1 - 0.0388 * (1 - whole.top1), abs=1e-4)
    assert (found.standard_error > whole.standard_error).all()
    assert (found.outside == whole.outside).all()
    assert small.digest != base.digest and small.settings["quantisation"]["measured"] == 0
    assert "in int8 the errors grow by" in small.note and small.settings["estimator"] == base.name
    for floats in ("float32", "float16", "float16-weights"):
        assert in_precision(base, floats) is base
    # Feature maps of 8 bits, whose range is found as they are computed, lose as much.
    assert in_precision(base, "int8-dynamic").digest == small.digest


def test_ranks_are_left_as_they_are() -> None:
    class Ranks(Surrogate):
        quantity = "share beaten"

    ranks = Ranks()
    assert in_precision(ranks, "int8") is ranks
    with pytest.raises(InvalidArgument, match=r"gives no top-1 \(share beaten\).*one precision"):
        InPrecisions(ranks)


def test_one_that_failed_fails_in_int8_too() -> None:
    class Failing(Surrogate):
        def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
            return Accuracy.failure("diverged")

    network = TinySpace().example()
    found = Quantised(Failing()).estimate([network])
    assert found.failed == ("diverged",) and np.isnan(found.top1[0])


class Slow(Surrogate):
    """One whose answers are kept."""

    slow = True


@pytest.mark.parametrize("of", [Quantised, InPrecisions])
def test_what_is_kept_is_of_float32(of: type[Quantised | InPrecisions], tmp_path: Path) -> None:
    base = Slow()
    networks = [TinySpace().example()]
    estimator = of(base).cached(tmp_path / "accuracy.db")
    estimator.on(TinySpace())(TinySpace().encode(networks[0])[None])
    (row,) = kept_rows(tmp_path / "accuracy.db", base.digest)
    assert row[1] == pytest.approx(base.estimate(networks).top1[0])
    assert estimator.digest == of(base).digest and estimator.settings == of(base).settings


def test_a_search_in_int8_keeps_what_was_estimated_of_float32(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    base, space = Slow(), TinySpace(resolution=32)
    accuracy = Quantised(base)
    how = search.get("random", 0)
    into = tmp_path / "r"
    search.run(space, latency=fitted, accuracy=accuracy, strategy=how, evaluations=5, into=into)
    rows = kept_rows(into / "accuracy.db", base.digest)
    assert len(rows) == 5
    for text, top1, *_ in rows:
        assert top1 == pytest.approx(base.estimate([Architecture.parse(text)]).top1[0])
