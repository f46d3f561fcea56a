"""Searches whose networks inherit weights: who from whom, what is kept, and the resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace
from resumed import ends_alike

from phonenas import search
from phonenas.data.images import ImageSet
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Cached, Request, ShortTraining, SuccessiveHalving, estimator
from phonenas.search.accuracy.cache import kept_rows
from phonenas.search.accuracy.inheritance.alignment import distance
from phonenas.search.accuracy.inheritance.ancestry import Ancestry
from phonenas.search.accuracy.inheritance.training import Place
from phonenas.search.accuracy.quantisation.quantised import InPrecisions
from phonenas.search.cluster.workers import Serial
from phonenas.search.training.recipe import SMALL
from phonenas.space import Architecture, get
from phonenas.space.errors import InvalidArgument, SettingsChanged, StoreError
from phonenas.testing.workers import LastFirst

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

SMALLEST, WIDER, DEEPER = (
    Architecture.parse(f"{blocks} head16 classes2 res16")
    for blocks in ("r1_k3_s22_e3_i8_o8", "r1_k3_s22_e6_i8_o8", "r3_k3_s22_e6_i8_o8")
)


def images(n: int = 20) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    return ImageSet.of(pixels, np.arange(n) % 2, ("cold", "warm"))


def training(epochs: int = 2, **more: Any) -> ShortTraining:
    recipe = SMALL.changed(epochs=epochs, batch=16)
    return ShortTraining(images(), recipe=recipe, hold_out=0.2, **more)


def test_the_nearest_network_trained_before_is_the_source() -> None:
    known = Ancestry(2)
    known.assign([SMALLEST, WIDER])
    assert known.source(str(SMALLEST)) is None and known.source(str(WIDER)) is None
    known.trained(str(SMALLEST), 0, 1)
    known.trained(str(WIDER), 1, 1)
    known.assign([SMALLEST, DEEPER])
    assert known.source(str(SMALLEST)) is None  # it was trained from its own first weights
    source = known.source(str(DEEPER))
    assert source is not None
    assert (source.network, source.row, source.epochs, source.lineage) == (str(WIDER), 1, 1, "")
    added = DEEPER.params - WIDER.params
    assert source.share == pytest.approx(1 - added / DEEPER.params)


def test_of_equally_near_ones_the_longest_trained_is_the_source() -> None:
    known = Ancestry(2)
    sides = [
        Architecture.parse(f"r1_k3_s22_e{e}_i8_o8 head16 classes2 res16 {word}".strip())
        for e, word in ((3, ""), (3, "hswish"))
    ]
    known.assign(sides)
    known.trained(str(sides[0]), 0, 1)
    known.trained(str(sides[1]), 1, 3)
    known.trained(str(sides[0]), 0, 1)
    known.assign([near := sides[0].with_resolution(32)])
    source = known.source(str(near))
    assert source is not None and source.row == 0  # nearer, though trained less
    known.clear()
    known.assign(twins := [sides[0], sides[0].with_resolution(24)])
    for row, (one, epochs) in enumerate(zip(twins, (1, 3), strict=True)):
        known.trained(str(one), row, epochs)
    known.assign([near])
    source = known.source(str(near))
    assert source is not None and (source.row, source.epochs) == (1, 3)


def test_shares_are_of_networks_with_the_classes_of_the_images() -> None:
    """In a space of 1,000 classes most parameters may be of outputs that no training has."""
    one, deeper = (Architecture.parse(f"r{n}_k3_s22_e3_i8_o8 head64 res16") for n in (1, 2))
    assert one.classes == deeper.classes == 1000
    known = Ancestry(2)
    known.assign([one])
    known.trained(str(one), 0, 1)
    known.assign([deeper])
    source = known.source(str(deeper))
    assert source is not None and source.network == str(one)
    # By hand: a layer has 8·24 to expand, 9·24, 24·8 to project, and 2 per BatchNorm channel;
    # the stem 27·8 + 2·8, the head 8·64 + 2·64, and two outputs 2·64 + 2.
    layer = 192 + 216 + 192 + 2 * (24 + 24 + 8)
    assert source.share == pytest.approx(1 - layer / (2 * layer + 232 + 640 + 130))


@pytest.mark.parametrize("name", ["mnasnet", "nasbench-macro"])
def test_the_source_is_the_one_that_a_look_at_each_gives(name: str) -> None:
    """Growing sets, from small spaces of few layers to large ones, with equal distances."""
    space = get(name, 32)
    drawn = list(dict.fromkeys(space.decode(g) for g in space.sample(np.random.default_rng(1), 24)))
    known = Ancestry(10)
    for row, one in enumerate(drawn):
        known.assign([one])
        source = known.source(str(one))
        if row:
            far = [distance(a.with_classes(10), one.with_classes(10)) for a in drawn[:row]]
            best = [r for r in range(row) if far[r] == min(far)]
            longest = max(r % 3 for r in best)
            assert source is not None
            assert (source.row, source.epochs) == (
                next(r for r in best if r % 3 == longest),
                longest,
            )
        known.trained(str(one), row, row % 3)


def test_what_an_answer_depends_on_tells_the_whole_lineage() -> None:
    digests = set()
    for epochs in (1, 2):
        for first in (SMALLEST, WIDER):
            one = training().inheriting()
            assert one.ancestry is not None
            digests.add(one.digest_of(str(DEEPER)))
            one.ancestry.assign([first])
            one.ancestry.trained(str(first), 0, epochs)
            middle = first.with_resolution(24)
            one.ancestry.assign([middle])
            digests.add(one.digest_of(str(middle)))
            one.ancestry.clear()
            assert one.digest_of(str(middle)) == one.digest
    assert len(digests) == 1 + 4
    assert training().digest != training().inheriting().digest
    assert training().digest_of(str(SMALLEST)) == training().digest


def test_a_training_begins_with_the_weights_of_its_source(tmp_path: Path) -> None:
    """With no step in between, growth leaves the accuracy, image by image, as it was."""
    from phonenas.search.accuracy.inheritance.training import trained_at
    from phonenas.search.training.job import TrainingJob
    from phonenas.search.training.resources import Resources

    recipe = SMALL.changed(epochs=2, batch=16, learning_rate=1e-12, weight_decay=0.0)
    recipe = recipe.changed(norm_momentum=1e-12, augment="none")
    job, resources = TrainingJob(images(), images(), recipe), Resources(threads=1)
    quick = TrainingJob(images(), images(), SMALL.changed(epochs=4, batch=16))
    source = trained_at(SMALLEST, quick, Place(None, str(tmp_path / "a"), True), resources)
    assert (tmp_path / "a" / "weights4.safetensors").exists()
    place = Place(1, str(tmp_path / "b"), True, (str(tmp_path / "a"), 4, "abc"))
    told = trained_at(DEEPER, job, place, resources)
    assert told.top1 == source.top1
    assert (tmp_path / "b" / "weights1.safetensors").exists()
    # The same folder takes no training that began elsewhere.
    with pytest.raises(SettingsChanged, match="start was 'abc'"):
        trained_at(DEEPER, job, Place(1, str(tmp_path / "b"), True), resources)


def test_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    one = training().inheriting().after(2, tmp_path / "trainings")
    assert one.ancestry is not None
    one.ancestry.assign([SMALLEST])
    one.ancestry.trained(str(SMALLEST), 0, 2)
    one.ancestry.assign([WIDER])
    with pytest.raises(StoreError, match="is gone, whose weights"):
        one.estimate([WIDER])


class _Elsewhere(Serial):
    """A worker on another node, which does not see the folder of the run."""

    def map(self, task: Callable[..., Any], arguments: Any, **more: Any) -> list[Any]:
        moved = []
        for call in arguments:
            place = call[-1]
            folder = place.folder.replace("trainings", "nowhere")
            moved.append((*call[:-1], Place(place.pause_after, folder, True)))
        return super().map(task, moved, **more)


def test_a_worker_that_does_not_see_the_weights_is_told(tmp_path: Path) -> None:
    one = training(workers=_Elsewhere()).inheriting().after(2, tmp_path / "trainings")
    with pytest.raises(StoreError, match="this worker does not see it"):
        one.estimate([SMALLEST])


def go(
    tiny: TinySpace, fitted: LatencyModel, accuracy: Any, evaluations: int, into: Path | None
) -> search.Searched:
    return search.search(
        tiny,
        latency=fitted,
        accuracy=accuracy,
        strategy=search.get("nsga2", seed=1, given={"population": "4"}),
        evaluations=evaluations,
        into=into,
    )


def inheriting(how: str, **more: Any) -> Any:
    if how == "in full":
        return training(1, **more).inheriting()
    return SuccessiveHalving(training(4, **more).inheriting(), 2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in full", "halving"])
def test_the_record_says_whose_weights_each_network_began_with(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path, how: str
) -> None:
    found = go(tiny, fitted, inheriting(how), 10, tmp_path / "r")
    table = pd.read_parquet(tmp_path / "r" / "evaluations.parquet")
    source, share = table["source"].to_numpy(), table["inherited"].to_numpy()
    assert (source[:4] == -1).all() and (source[4:] >= 0).all()
    assert (source < np.arange(10)).all()
    assert ((share > 0) == (source >= 0)).all() and (share <= 1).all()
    assert {"source", "inherited"} <= next(iter(found.front)).values.keys()
    # Without them it is another run.
    plain = training(1) if how == "in full" else SuccessiveHalving(training(4), 2)
    with pytest.raises(SettingsChanged, match="accuracy"):
        go(tiny, fitted, plain, 10, tmp_path / "r")
    go(tiny, fitted, plain, 10, tmp_path / "plain")
    assert "source" not in pd.read_parquet(tmp_path / "plain" / "evaluations.parquet")
    # The cache tells the answers of one network with other sources apart, and finds them all.
    base = inheriting(how)
    digest = (base if how == "in full" else base.steps[0]).digest
    assert len(kept_rows(tmp_path / "r" / "accuracy.db", digest, inherited=True)) == 10
    # Those of a later generation inherited, and are no answers of the same training.
    assert 0 < len(kept_rows(tmp_path / "r" / "accuracy.db", digest)) < 10


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in full", "halving"])
def test_a_search_goes_on_as_if_all_had_been_given_at_once_in_any_order_of_workers(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path, how: str
) -> None:
    go(tiny, fitted, inheriting(how), 11, tmp_path / "whole")
    go(tiny, fitted, inheriting(how, workers=LastFirst()), 6, tmp_path / "r")
    go(tiny, fitted, inheriting(how, workers=LastFirst()), 11, tmp_path / "r")
    ends_alike(tmp_path / "r", tmp_path / "whole")


def test_what_does_not_go_with_it_is_refused(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    one = training().inheriting()
    with pytest.raises(InvalidArgument, match="within the folder of a run"):
        go(tiny, fitted, one, 4, None)
    with pytest.raises(InvalidArgument, match="leave --accuracy-cache out"):
        go(tiny, fitted, Cached(one, tmp_path / "shared.db"), 4, tmp_path / "r")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    again = Cached(one, tmp_path / "begun" / "accuracy.db", again=True)
    with pytest.raises(InvalidArgument, match="which has begun"):
        go(tiny, fitted, again, 4, tmp_path / "begun")
    with pytest.raises(InvalidArgument, match="at their own resolution"):
        training(resolution_px=8).inheriting()
    from phonenas.search.accuracy.inheritance.run import inheriting_in

    with pytest.raises(InvalidArgument, match="in one precision"):
        inheriting_in(tmp_path, InPrecisions(one))


def test_by_its_words_it_is_of_trainings_alone() -> None:
    request = Request(images=images(), hold_out=0.2, inherit=True)
    one = estimator("training:small", request)
    assert one.ancestry is not None
    assert one.schedule == "30 epochs of these images, from inherited weights"
    with pytest.raises(InvalidArgument, match="leave --inherit out"):
        estimator("imagenet", Request(inherit=True))
