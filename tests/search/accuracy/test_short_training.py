"""Short trainings: the paper's proxy for accuracy, on held-out training images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.data.images import ImageSet
from phonenas.search.accuracy.short_training import (
    SEED_NOISE,
    ShortTraining,
    binomial_error,
    train_briefly,
)
from phonenas.search.cluster.workers import Needs, Serial
from phonenas.search.training.recipe import SMALL
from phonenas.search.training.resources import Resources
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, MissingExtra, UnknownName
from phonenas.testing.workers import LastFirst

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

TINY = Architecture.parse("r1_k3_s22_e1_i8_o8 head16 classes3 res16")
WIDER = Architecture.parse("r1_k3_s22_e3_i8_o16 head24 classes3 res16")
QUICK = SMALL.changed(epochs=16, batch=16, learning_rate=0.4)


def noisy(n: int = 64, seed: int = 0) -> ImageSet:
    """Two classes told by their colour, a few of the labels wrong."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(60, 196, (n, 16, 16, 3))
    pixels[..., 0] += (labels * 50)[:, None, None]
    wrong = rng.choice(n, n // 16, replace=False)
    labels[wrong] = 1 - labels[wrong]
    return ImageSet.of(pixels.clip(0, 255).astype(np.uint8), labels, ("cold", "warm"))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return noisy()


@pytest.fixture(scope="module")
def brief(images: ImageSet) -> ShortTraining:
    return ShortTraining(images, recipe=QUICK, hold_out=0.25)


def test_it_learns_on_images_it_never_reads_by(images: ImageSet, brief: ShortTraining) -> None:
    told = brief.estimate([TINY, WIDER])
    assert len(told) == 2
    assert (told.top1 > 0.6).all(), "two classes: chance is a half"
    assert (told.standard_error > SEED_NOISE).all()
    assert not told.outside.any()
    assert not told.failed
    assert all(s > 0 for s in told.seconds)
    assert brief.cost_s == pytest.approx(np.mean(told.seconds))
    pixels = images.array()
    assert pixels is not None
    train, held = brief._train.array(), brief._held.array()
    assert train is not None
    assert held is not None
    assert len(train) == 48
    assert len(held) == 16
    assert np.bincount(brief._held.labels).tolist() == [8, 8]
    both = {i.tobytes() for i in train} | {i.tobytes() for i in held}
    assert both == {i.tobytes() for i in pixels}
    # Shares of sixteen images.
    assert np.allclose(told.top1 * 16, np.round(told.top1 * 16), rtol=0, atol=1e-9)
    assert "16 held-out training images after 16 epochs" in brief.note


def test_same_network_same_answer_in_any_company_and_order(
    images: ImageSet, brief: ShortTraining
) -> None:
    workers = LastFirst()
    other = ShortTraining(
        images, recipe=QUICK, hold_out=0.25, workers=workers, resources=Resources(loaders=0)
    )
    alone = brief.estimate([WIDER])
    told = other.estimate([TINY, WIDER, TINY])
    assert told.top1[1] == alone.top1[0]
    assert told.top1[0] == told.top1[2]
    assert len(workers.calls) == 2, "equal networks are trained once"
    assert workers.needs == Needs(cpus=1.0)
    assert other.digest == brief.digest
    assert len(brief.estimate([])) == 0


def test_each_is_told_as_soon_as_it_is_known(images: ImageSet) -> None:
    told: list[int] = []
    brief = ShortTraining(images, recipe=QUICK, hold_out=0.25, workers=LastFirst())
    brief.estimate_each([TINY, WIDER], lambda i, one: told.append(i) or None)
    assert told == [1, 0]


def test_digest_tells_all_that_answers_depend_on(images: ImageSet) -> None:
    asked: dict[str, Any] = {"recipe": QUICK, "hold_out": 0.25}
    digests = [
        ShortTraining(images, **{**asked, **changed}).digest
        for changed in (
            {},
            {"seed": 1},
            {"hold_out": 0.5},
            {"repeats": 2},
            {"resources": Resources(threads=2)},
            {"recipe": QUICK.changed(epochs=3)},
            {"resolution_px": 8},
        )
    ]
    digests.append(ShortTraining(noisy(seed=1), **asked).digest)
    assert len(set(digests)) == len(digests)
    assert ShortTraining(noisy(), **asked).digest == digests[0]
    assert ShortTraining(images, recipe="small").recipe == SMALL
    with pytest.raises(UnknownName, match="small"):
        ShortTraining(images, recipe="smal")


def test_a_paused_training_goes_on_from_its_own_checkpoint(
    images: ImageSet, tmp_path: Path
) -> None:
    workers = LastFirst()
    whole = ShortTraining(images, recipe=QUICK, hold_out=0.25, workers=workers)
    first, last = (whole.after(epochs, tmp_path) for epochs in (4, 16))
    assert (last.digest, whole.epochs) == (whole.digest, 16)
    assert first.digest != whole.digest
    early = first.estimate([TINY])
    (kept,) = tmp_path.iterdir()
    assert (kept / "checkpoint.safetensors").exists()
    assert len((kept / "curve.csv").read_text().splitlines()) == 1 + 4
    assert last.estimate([TINY]).top1[0] == whole.estimate([TINY]).top1[0]
    curve = [line.split(",") for line in (kept / "curve.csv").read_text().splitlines()]
    assert [row[curve[0].index("top1")] != "" for row in curve[1:]] == [
        i in (4, 16) for i in range(1, 17)
    ]
    # Begun from nothing the answer is the same.
    assert whole.after(4).estimate([TINY]).top1[0] == early.top1[0]
    with pytest.raises(InvalidArgument, match="pause after 1 to 16"):
        whole.after(17)


@pytest.mark.slow
def test_repeats_are_other_seeds_and_narrow_the_doubt(images: ImageSet) -> None:
    workers = LastFirst()
    one = ShortTraining(images, recipe=QUICK, hold_out=0.25)
    three = ShortTraining(images, recipe=QUICK, hold_out=0.25, repeats=3, workers=workers)
    told = three.estimate([TINY])
    seeds = [call[1] for call in workers.calls]
    assert len(set(seeds)) == 3
    each = [train_briefly(*call)["top1"] for call in workers.calls]
    assert told.top1[0] == pytest.approx(np.mean(each))
    assert one.estimate([TINY]).top1[0] in each
    spread = float(np.sum((np.array(each) - np.mean(each)) ** 2))
    seed_error = np.sqrt((4 * SEED_NOISE**2 + spread) / 6 / 3)
    expected = np.hypot(binomial_error(float(told.top1[0]), 16), seed_error)
    assert told.standard_error[0] == pytest.approx(expected)


def test_binomial_error() -> None:
    assert binomial_error(0.5, 10_000) == pytest.approx(0.005, rel=1e-3)
    assert binomial_error(1.0, 100) > 0
    assert binomial_error(0.0, 100) == pytest.approx(binomial_error(1.0, 100))


def test_a_diverged_training_is_no_zero(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    from phonenas.search.training import trainer

    train = trainer.run_job

    def diverges(*args: Any, **more: Any) -> Any:
        found = train(*args, **more)
        return replace(found, top1=float("nan"), top5=float("nan"), diverged="its loss is nan")

    monkeypatch.setattr(trainer, "run_job", diverges)
    told = ShortTraining(images, recipe=QUICK, hold_out=0.25).estimate([TINY])
    assert np.isnan(told.top1[0])
    assert np.isnan(told.standard_error[0])
    assert told.failed == ("its loss is nan",)


def test_what_breaks_off_fails_alone_and_what_stops_all_is_raised(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phonenas.search.training import trainer

    train = trainer.run_job

    def out_of_memory(network: Architecture, *args: Any, **more: Any) -> Any:
        if "o16" in str(network):
            raise RuntimeError("not enough memory: you tried to allocate\n 10 GB")
        return train(network, *args, **more)

    monkeypatch.setattr(trainer, "run_job", out_of_memory)
    brief = ShortTraining(images, recipe=QUICK, hold_out=0.25)
    told = brief.estimate([WIDER, TINY])
    assert told.failed == ("not enough memory: you tried to allocate 10 GB", "")
    assert np.isnan(told.top1[0])
    assert told.top1[1] > 0.5
    twice = ShortTraining(images, recipe=QUICK, hold_out=0.25, repeats=2).estimate([WIDER])
    assert "2 of 2 seeds" in twice.failed[0]

    def no_torch(*args: Any, **more: Any) -> Any:
        raise MissingExtra("torch")

    monkeypatch.setattr(trainer, "run_job", no_torch)
    with pytest.raises(MissingExtra):
        brief.estimate([TINY])


def test_another_resolution(images: ImageSet) -> None:
    workers = LastFirst()
    brief = ShortTraining(images, recipe=QUICK, resolution_px=8, workers=workers)
    assert brief.estimate([TINY.with_resolution(224)]).top1[0] > 0
    assert Architecture.parse(workers.calls[0][0]).resolution_px == 8


def test_threads_are_restored_and_values_checked(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not truly set: on a busy computer two threads wait for each other.
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    ShortTraining(images, recipe=QUICK.changed(epochs=1), resources=Resources(threads=2)).estimate(
        [TINY]
    )
    assert asked[0] == 2
    assert asked[-1] == before
    for wrong in ({"repeats": 0}, {"hold_out": 1.0}):
        with pytest.raises(InvalidArgument):
            ShortTraining(images, **wrong)
    assert isinstance(ShortTraining(images).workers, Serial)


def test_by_its_words_a_training_holds_a_share_of_a_gpu() -> None:
    from phonenas.search.accuracy import Request, estimator

    share = Resources(gpus=0.5)
    trains = estimator("training", Request(images=noisy(), hold_out=0.25, resources=share))
    assert isinstance(trains, ShortTraining) and trains.resources.needs == Needs(1, 0.5)
    none = estimator("training", Request(images=noisy(), hold_out=0.25))
    assert isinstance(none, ShortTraining) and none.resources.gpus == 0
    with pytest.raises(InvalidArgument, match="leave --gpus out"):
        estimator("surrogate", Request(resources=share))
    with pytest.raises(InvalidArgument, match="leave --loaders out"):
        estimator("zero_cost", Request(resources=Resources(loaders=2)))
