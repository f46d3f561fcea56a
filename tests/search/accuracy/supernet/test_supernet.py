"""Supernets: weights shared over a space's choices, trained once, read for any of its networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import undigested

from phonenas import space as spaces
from phonenas.data import files
from phonenas.data.images import ImageSet
from phonenas.search.accuracy.supernet.paths import Paths, extremes
from phonenas.search.accuracy.supernet.shared_weights import SharedWeights
from phonenas.search.accuracy.supernet.supernet import Supernet
from phonenas.search.accuracy.supernet.train import RECIPE, Sharing, SupernetEpoch, train_supernet
from phonenas.search.training.resources import Resources
from phonenas.space import Architecture, Block, Operator, Part, SearchSpace
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    NotInSpace,
    SettingsChanged,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

PX = 16
EXPANSIONS = {"conv": 0, "dsconv": 1, "mbconv3": 3, "mbconv6": 6}
CHOICES: dict[str, tuple[Any, ...]] = {
    "op": tuple(EXPANSIONS),
    "kernel": (3, 5),
    "se": (0.0, 0.25),
    "skip": ("pool", "identity", "none"),
    "filters": (8, 12),
    "layers": (1, 2),
}


def _block(number: int, *values: Any) -> tuple[Block, ...]:
    before = values[0] if number else 8
    op, kernel, se, skip, filters, layers = values[-6:]
    return (Block(layers, kernel, 2, EXPANSIONS[op], before, filters, se, skip),)


def arrays_of(shared: SharedWeights) -> dict[str, Any]:
    """All tensors, copies, by name."""
    return {name: t.detach().numpy().copy() for name, t in shared.tensors.items()}


class Small(SearchSpace):
    """Every kind of choice that MnasNet has, in two blocks that are quick to train."""

    name = "small"
    stem_channels = 8
    head_channels = 24

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {f"b{n}_{name}": options for n in range(2) for name, options in CHOICES.items()}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px = [], self.stem.out_px
        for n in range(2):
            own = tuple(f"b{n}_{name}" for name in CHOICES)
            before = ("b0_filters",) if n else ()
            parts.append(Part(f"block {n}", before + own, px, partial(_block, n)))
            px = -(-px // 2)
        return (*parts, Part("head", ("b1_filters",), px, partial(self._head, px)))

    def _head(self, px: int, filters: int) -> Operator:
        return Operator("head", filters, self.classes, px, features=self.head_channels)


def coloured(n: int = 120, seed: int = 0) -> ImageSet:
    """Three classes of noise, each brighter in one colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(60, 196, (n, PX, PX, 3))
    pixels[np.arange(n), :, :, labels] += 50
    return ImageSet.of(pixels.astype(np.uint8), labels, ("red", "green", "blue"))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return coloured()


@pytest.fixture(scope="module")
def small() -> Small:
    return Small(resolution=PX)


QUICK = RECIPE.changed(epochs=4, batch=30, learning_rate=0.2)


@pytest.fixture(scope="module")
def trained(
    small: Small, images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[SupernetEpoch]]:
    folder, events = tmp_path_factory.mktemp("supernet"), []
    found = train_supernet(
        small,
        images,
        into=folder,
        recipe=QUICK,
        on_event=events.append,
        sharing=Sharing(hold_out=0.25, random=1),
    )
    return folder, found, events


def stirred(space: SearchSpace, classes: int) -> SharedWeights:
    """First weights without the round values of new BatchNorms and of the classifier."""
    shared, generator = SharedWeights(space, classes, seed=5), torch.Generator().manual_seed(1)
    for t in shared.tensors.values():
        t.data.add_(torch.randn(t.shape, generator=generator) * 0.1)
    return shared


def alike(
    shared: SharedWeights, space: SearchSpace, genome: Any, px: int, dtype: Any = None
) -> float:
    """Greatest relative difference of outputs between a path and `to_torch` with its weights."""
    dtype = dtype or torch.float32
    for t in shared.tensors.values():
        t.data = t.data.to(dtype)
    from phonenas.search.training.evaluation import set_weights
    from phonenas.space.lowering.torch import to_torch

    network = replace(space.decode(genome), classes=shared.classes)
    module = to_torch(network, dropout=0.0, seed=1)
    set_weights(module, shared.weights_of(genome))
    module.to(dtype)
    x = torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(3)).to(dtype)
    with torch.no_grad():
        ours, theirs = shared.forward(genome, x), module.train()(x)
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


class TestSharing:
    def test_a_path_computes_what_to_torch_computes_with_its_weights(self, small: Small) -> None:
        shared = stirred(small, 3)
        for genome in small.sample(np.random.default_rng(0), 10):
            assert alike(shared, small, genome, PX) <= 1e-5

    @pytest.mark.slow
    @pytest.mark.parametrize("name", spaces.names())
    def test_so_it_does_in_every_space(self, name: str) -> None:
        space = spaces.get(name, 32)
        shared = stirred(space, 10)
        # In double precision: after 20 layers BatchNorm over four values of a map of one pixel
        # makes much of the last digits, in which two orders of memory differ.
        for genome in space.sample(np.random.default_rng(1), 4):
            assert alike(shared, space, genome, 32, torch.float64) <= 1e-6

    def test_in_a_published_space(self) -> None:
        space = spaces.get("nasbench-macro", PX)
        shared = stirred(space, 10)
        for genome in ([0] * 8, [2, 0, 1, 0, 2, 1, 1, 0]):
            assert alike(shared, space, genome, PX) <= 1e-5

    def test_slices_of_one_tensor_are_shared_and_kernels_are_not(self, small: Small) -> None:
        shared = stirred(small, 3)
        genome = np.zeros(len(small.decisions), np.int8)
        names = list(small.decisions)
        genome[names.index("b0_op")] = list(EXPANSIONS).index("mbconv6")

        def trained_by(**changes: int) -> dict[str, Any]:
            row = genome.copy()
            for name, option in changes.items():
                row[names.index(name)] = option
            for t in shared.tensors.values():
                t.grad = None
            x = torch.randn(4, 3, PX, PX, generator=torch.Generator().manual_seed(0))
            shared.forward(row, x).square().sum().backward()
            return {n: t.grad for n, t in shared.tensors.items() if t.grad is not None}

        wide, narrow = trained_by(b0_filters=1), trained_by()
        assert set(wide) == set(narrow)
        project = "part0.layer0.mbconv_k3.project.weight"
        assert shared.tensors[project].shape == (12, 48, 1, 1)
        # What the narrower one does not have takes no gradient from it.
        assert narrow[project][:8].any()
        assert not narrow[project][8:].any()
        third = trained_by(b0_op=list(EXPANSIONS).index("mbconv3"))[project]
        assert third[:, :24].any()
        assert not third[:, 24:].any()
        five = trained_by(b0_kernel=1)
        assert not {n for n in five if n.startswith("part0")} & set(narrow)
        assert "part0.layer1.mbconv_k3.expand.weight" in trained_by(b0_layers=1)
        assert "part0.layer0.dsconv_k3.depthwise.weight" in trained_by(b0_op=1)

    def test_weights_are_those_of_to_torch_by_name_and_shape(self, small: Small) -> None:
        from phonenas.space.lowering.weights_file import shapes

        shared = SharedWeights(small, 3)
        for genome in small.sample(np.random.default_rng(2), 20):
            weights = shared.weights_of(genome)
            wanted = shapes(replace(small.decode(genome), classes=3))
            assert {n: w.shape for n, w in weights.items()} == wanted
        weights["0.conv.weight"][:] = 7  # copies
        assert not (arrays_of(shared)["stem.conv.weight"] == 7).any()

    def test_first_weights_come_from_the_seed(self, small: Small) -> None:
        one, same, other = (arrays_of(SharedWeights(small, 3, seed=s)) for s in (0, 0, 1))
        assert all(np.array_equal(one[n], same[n]) for n in one)
        assert not np.array_equal(one["stem.conv.weight"], other["stem.conv.weight"])

    def test_weights_of_another_space_are_refused_by_name(self, small: Small) -> None:
        arrays = arrays_of(SharedWeights(small, 3))
        again = SharedWeights(small, 3, arrays=arrays)
        assert all(np.array_equal(a, arrays[n]) for n, a in arrays_of(again).items())
        with pytest.raises(InvalidArgument, match="classifier.weight is .*classes take"):
            SharedWeights(small, 4, arrays=arrays)
        with pytest.raises(InvalidArgument, match="not there"):
            SharedWeights(small, 3, arrays={n: a for n, a in arrays.items() if "stem" not in n})


class TestPaths:
    def test_the_largest_and_the_smallest(self, small: Small) -> None:
        largest, smallest = extremes(small)
        sizes = [small.decode(g).macs for g in small.sample(np.random.default_rng(0), 2000)]
        assert small.decode(largest).macs >= max(sizes)
        assert small.decode(smallest).macs <= min(sizes)
        macro = spaces.get("nasbench-macro")
        assert extremes(macro)[0].tolist() == [2] * 8
        assert extremes(macro)[1].tolist() == [0] * 8

    def test_every_option_comes_equally_often(self, small: Small) -> None:
        paths = Paths(small, random=3, sandwich=False, seed=0)
        drawn = np.concatenate([paths.next() for _ in range(40)])
        for gene, count in enumerate(small.option_counts):
            seen = np.bincount(drawn[:, gene], minlength=count)
            assert seen.max() - seen.min() <= 1
        small.check(drawn)
        assert len(np.unique(drawn, axis=0)) > 100

    def test_sandwich_puts_both_ends_first(self, small: Small) -> None:
        paths = Paths(small, random=2, sandwich=True, seed=0)
        for _ in range(3):
            step = paths.next()
            assert len(step) == 4
            assert np.array_equal(step[:2], np.array(extremes(small)))

    def test_state_goes_on_to_the_bit(self, small: Small) -> None:
        one = Paths(small, random=2, sandwich=False, seed=4)
        for _ in range(5):
            one.next()
        state = json.loads(json.dumps(one.state()))
        rest = [one.next().tolist() for _ in range(9)]
        other = Paths(small, random=2, sandwich=False, seed=99)
        other.restore(state)
        assert [other.next().tolist() for _ in range(9)] == rest
        with pytest.raises(InvalidArgument, match="1 random network or more"):
            Paths(small, random=0)


class TestTraining:
    def test_it_learns_and_tells(
        self, trained: tuple[Path, dict[str, Any], list[SupernetEpoch]], small: Small
    ) -> None:
        folder, found, events = trained
        assert [e.epoch for e in events] == [1, 2, 3, 4]
        assert events[-1].loss < 0.8 * events[0].loss
        assert events[-1].step == found["steps"] == 4 * 3
        assert found["images"] == 90
        assert found["images_held"] == 30
        assert len(found["random"]) == 20
        ends = [found["largest"]["top1"], found["smallest"]["top1"]]
        assert np.mean(ends) > 0.6, "three classes: chance is a third"
        assert Architecture.parse(found["largest"]["network"]).macs == found["largest"]["macs"]
        assert json.loads((folder / "supernet.json").read_text()) == found
        assert sorted(p.name for p in folder.iterdir()) == ["supernet.json", "weights.safetensors"]

    def test_done_is_done_and_other_settings_are_refused(
        self, trained: tuple[Path, dict[str, Any], Any], small: Small, images: ImageSet
    ) -> None:
        folder, found, _ = trained
        before = (folder / "weights.safetensors").stat().st_mtime_ns
        again = train_supernet(
            small, images, into=folder, recipe=QUICK, sharing=Sharing(hold_out=0.25, random=1)
        )
        assert again == found
        assert (folder / "weights.safetensors").stat().st_mtime_ns == before
        more = QUICK.changed(epochs=5, warmup_epochs=QUICK.warmup_epochs)
        with pytest.raises(SettingsChanged, match="epochs 4, and 5 was given"):
            train_supernet(
                small, images, into=folder, recipe=more, sharing=Sharing(hold_out=0.25, random=1)
            )
        with pytest.raises(SettingsChanged, match="seed 0, and 1"):
            train_supernet(
                small,
                images,
                into=folder,
                recipe=QUICK,
                seed=1,
                sharing=Sharing(hold_out=0.25, random=1),
            )

    @pytest.mark.slow
    def test_a_stopped_training_goes_on_to_the_same_weights(
        self,
        trained: tuple[Path, dict[str, Any], Any],
        small: Small,
        images: ImageSet,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from phonenas.search.accuracy.supernet import run
        from phonenas.search.training import weights as training_weights

        monkeypatch.setattr(run, "_KEEP_S", 0.0)  # after every step
        update, steps = run.Run.update, []

        def stops(run: Any, x: Any, y: Any) -> float:
            if len(steps) == 4:  # in the midst of the second epoch
                raise KeyboardInterrupt
            steps.append(1)
            return update(run, x, y)

        monkeypatch.setattr(run.Run, "update", stops)
        with pytest.raises(KeyboardInterrupt):
            train_supernet(
                small, images, into=tmp_path, recipe=QUICK, sharing=Sharing(hold_out=0.25, random=1)
            )
        with pytest.raises(UnknownName, match="not done"):
            Supernet(tmp_path, images, space=small)
        monkeypatch.setattr(run.Run, "update", update)
        with pytest.raises(SettingsChanged, match="random 1, and 2"):
            train_supernet(
                small, images, into=tmp_path, recipe=QUICK, sharing=Sharing(hold_out=0.25, random=2)
            )
        found = train_supernet(
            small, images, into=tmp_path, recipe=QUICK, sharing=Sharing(hold_out=0.25, random=1)
        )
        whole = training_weights.load_checkpoint(trained[0] / "weights.safetensors", "")
        broken = training_weights.load_checkpoint(tmp_path / "weights.safetensors", "")
        assert whole is not None
        assert broken is not None
        for name, t in whole.tensors.items():
            assert torch.equal(t, broken.tensors[name]), name
        assert found["random"] == trained[1]["random"]
        assert [e["loss"] for e in found["curve"]] == [e["loss"] for e in trained[1]["curve"]]

    @pytest.mark.slow
    def test_one_path_a_step_and_learning_from_the_largest(
        self, small: Small, images: ImageSet, tmp_path: Path
    ) -> None:
        short = QUICK.changed(epochs=1)
        one = train_supernet(
            small,
            images,
            into=tmp_path / "one",
            recipe=short,
            sharing=Sharing(random=1, sandwich=False),
        )
        taught = train_supernet(
            small, images, into=tmp_path / "taught", recipe=short, sharing=Sharing(distil=True)
        )
        losses = [f["curve"][0]["loss"] for f in (one, taught)]
        assert len(set(losses)) == 2
        with pytest.raises(InvalidArgument, match="needs sandwich"):
            train_supernet(
                small, images, into=tmp_path, sharing=Sharing(sandwich=False, distil=True)
            )

    def test_what_cannot_be_trained(
        self, small: Small, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(NotEnoughData, match="fewer than the batch of 256"):
            large = RECIPE.changed(batch=256)
            train_supernet(small, images, into=tmp_path / "a", recipe=large)
        forward, calls = SharedWeights.forward, []

        def wild(shared: SharedWeights, genome: Any, x: Any) -> Any:
            calls.append(1)
            return forward(shared, genome, x) * (float("inf") if len(calls) > 6 else 1)

        monkeypatch.setattr(SharedWeights, "forward", wild)
        with pytest.raises(
            InvalidArgument, match="not a finite number at step 2 .*--learning-rate"
        ):
            train_supernet(small, images, into=tmp_path / "b", recipe=QUICK)
        assert not (tmp_path / "b" / "supernet.json").exists()


@pytest.fixture(scope="module")
def net(trained: tuple[Path, Any, Any], small: Small, images: ImageSet) -> Supernet:
    return Supernet(trained[0], images, space=small)


class TestReading:
    def test_top1_is_a_share_with_its_standard_error(self, net: Supernet, small: Small) -> None:
        networks = [small.decode(g) for g in small.sample(np.random.default_rng(0), 6)]
        told = net.estimate(networks)
        assert len(told) == 6
        assert ((told.top1 >= 0) & (told.top1 <= 1)).all()
        assert (told.standard_error > 0.02).all(), "30 images alone leave more doubt than that"
        assert not told.failed
        assert not told.outside.any()
        assert len(net.estimate([])) == 0

    def test_the_same_answer_in_any_company_and_from_an_equal_one(
        self, net: Supernet, small: Small, images: ImageSet
    ) -> None:
        genomes = small.sample(np.random.default_rng(3), 5)
        networks = [small.decode(g) for g in genomes]
        told = net.estimate(networks)
        assert np.array_equal(net.estimate(networks[::-1]).top1, told.top1[::-1])
        assert np.array_equal(net.on(small)(genomes).top1, told.top1)
        again = Supernet(net.folder, images, space=small)
        assert again.digest == net.digest
        assert np.array_equal(again.estimate(networks[2:3]).top1, told.top1[2:3])
        assert net.cost_s > 0

    def test_it_reads_what_the_training_read(
        self, net: Supernet, trained: tuple[Path, dict[str, Any], Any]
    ) -> None:
        for row in (trained[1]["largest"], trained[1]["random"][4]):
            network = Architecture.parse(row["network"])
            found = net.evaluate(network)
            assert (found.top1, found.probability) == (row["top1"], row["probability"])
            assert net.estimate([network]).top1[0] == row["estimate"]
        rows = [trained[1][end] for end in ("largest", "smallest")] + trained[1]["random"]
        told, counted = ([r[k] for r in rows] for k in ("estimate", "top1"))
        assert min(told) >= 0 and max(told) <= 1
        assert np.mean(told) == pytest.approx(np.mean(counted), abs=0.02)

    def test_at_another_resolution_or_with_other_classes_it_is_the_same_network(
        self, net: Supernet, small: Small
    ) -> None:
        network = small.decode(small.sample(np.random.default_rng(4), 1)[0])
        bigger = replace(network, resolution_px=224, classes=7)
        assert net.evaluate(bigger) == net.evaluate(network)
        with pytest.raises(NotInSpace):
            net.evaluate(Architecture.parse("r1_k7_s22_e6_i8_o8 res16"))

    def test_statistics_are_those_of_the_network(self, net: Supernet, small: Small) -> None:
        """Calibrated ones, not a mixture over networks: the plain mean over batches."""
        genome = small.sample(np.random.default_rng(5), 1)[0]
        weights = net.weights_of(small.decode(genome))
        stem = torch.nn.functional.conv2d(
            net.evaluator._calibration[0][0], torch.tensor(weights["0.conv.weight"]), None, 2, 1
        )
        assert len(net.evaluator._calibration) == 1
        mean = stem.mean((0, 2, 3)).numpy()
        assert np.allclose(weights["0.conv_bn.running_mean"], mean, rtol=0, atol=1e-5)
        assert (
            weights[
                "1.depthwise_bn.running_var"
                if "1.depthwise_bn.running_var" in weights
                else "1.conv_bn.running_var"
            ]
            != 1
        ).any()

    def test_inherited_weights_leave_as_a_file(self, net: Supernet, small: Small) -> None:
        import onnxruntime

        from phonenas.space.lowering.onnx import to_onnx

        network = net.evaluator.fitted(small.decode(small.sample(np.random.default_rng(6), 1)[0]))
        model = to_onnx(network, weights=net.weights_of(network))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        x = net.evaluator._held[0][0][:1]
        (theirs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            ours = net.module(network)(x).numpy()
        assert np.abs(ours.ravel() - np.asarray(theirs).ravel()).max() <= 1e-4

    def test_broken_weights_fail_with_a_reason(
        self, net: Supernet, small: Small, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genome = small.sample(np.random.default_rng(7), 1)[0]
        network = small.decode(genome)
        good = net.estimate([network]).top1[0]
        spoiled = SharedWeights(small, 3, arrays=arrays_of(net.shared))
        spoiled.tensors["stem.conv.weight"].data[0] = float("nan")
        monkeypatch.setattr(net, "shared", spoiled)
        told = net.estimate([network])
        assert np.isnan(told.top1[0])
        assert "not finite numbers" in told.failed[0]
        monkeypatch.undo()
        assert net.estimate([network]).top1[0] == good

    def test_other_images_and_other_spaces_are_refused(
        self, trained: tuple[Path, Any, Any], small: Small, images: ImageSet
    ) -> None:
        folder = trained[0]
        with pytest.raises(SettingsChanged, match=images.digest):
            Supernet(folder, coloured(seed=1), space=small)
        with pytest.raises(SettingsChanged, match="at 16 px"):
            Supernet(folder, images, space=Small(resolution=32))

        class Other(Small):
            head_channels = 32

        with pytest.raises(SettingsChanged, match="other choices"):
            Supernet(folder, images, space=Other(resolution=PX))
        with pytest.raises(UnknownName, match="small"):
            Supernet(folder, images)  # no registered space

    def test_damaged_files_are_refused(
        self, trained: tuple[Path, Any, Any], small: Small, images: ImageSet, tmp_path: Path
    ) -> None:
        with pytest.raises(UnknownName, match="phonenas supernet"):
            Supernet(tmp_path, images, space=small)
        text = (trained[0] / "supernet.json").read_text()
        weights = (trained[0] / "weights.safetensors").read_bytes()
        (tmp_path / "supernet.json").write_text(text[: len(text) // 2])
        with pytest.raises(UnsupportedFormat, match="damaged"):
            Supernet(tmp_path, images, space=small)
        (tmp_path / "supernet.json").write_text(text.replace('"version": 2', '"version": 9'))
        with pytest.raises(UnsupportedFormat, match="version 9.*versions 1 to 2"):
            Supernet(tmp_path, images, space=small)
        (tmp_path / "supernet.json").write_text(text)
        with pytest.raises(UnsupportedFormat, match="no weights"):
            Supernet(tmp_path, images, space=small)
        (tmp_path / "weights.safetensors").write_bytes(weights[:-9] + b"123456789")
        with pytest.raises(UnsupportedFormat, match="damaged"):
            Supernet(tmp_path, images, space=small)
        old = json.dumps(undigested(json.loads(text)))
        changed = old.replace('"distil": false', '"distil": true')
        (tmp_path / "supernet.json").write_text(changed)
        (tmp_path / "weights.safetensors").write_bytes(weights)
        with pytest.raises(UnsupportedFormat, match="not of one training"):
            Supernet(tmp_path, images, space=small)


def test_one_process_at_a_time_trains_in_a_folder(
    small: Small, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    mine = files.Lock(tmp_path)
    with pytest.raises(StoreError, match="another process works in"):
        train_supernet(small, images, into=tmp_path, recipe=QUICK, resources=Resources("cpu"))
    mine.close()
    left = tmp_path / ".checkpoint.safetensors.abcdefgh"
    left.touch()
    once = QUICK.changed(epochs=1)
    train_supernet(
        small,
        images,
        into=tmp_path,
        recipe=once,
        sharing=Sharing(random=1),
        resources=Resources("cpu"),
    )
    assert not left.exists() and (tmp_path / "supernet.json").exists()
    (tmp_path / "run.json").touch()
    with pytest.raises(StoreError, match="holds a search"):
        train_supernet(
            small,
            images,
            into=tmp_path,
            recipe=once,
            sharing=Sharing(random=1),
            resources=Resources("cpu"),
        )


def test_threads_are_set_and_restored(
    net: Supernet, small: Small, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not truly set: on a busy computer two threads wait for each other.
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    two = Supernet(net.folder, images, space=small, threads=2)
    two.evaluate(small.decode(extremes(small)[1]))
    assert asked[-2:] == [2, before]
    assert asked[::2] == [2] * (len(asked) // 2)
    assert two.digest != net.digest


def test_the_command(
    images: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from phonenas.cli.train import supernet

    monkeypatch.setattr(spaces, "get", lambda name, resolution=PX: Small(resolution))
    pixels = images.array()
    assert pixels is not None
    np.savez(
        tmp_path / "x.npz",
        x_train=pixels,
        y_train=images.labels,
        x_test=pixels[:3],
        y_test=images.labels[:3],
    )
    out = tmp_path / "net"
    asked: dict[str, Any] = {"data": tmp_path / "x.npz", "out": out}
    supernet(**asked, space="small", epochs=1, resolution=PX, batch=32)
    shown = capsys.readouterr()
    assert "epoch 1 of 1: loss" in shown.err
    assert "largest" in shown.out
    assert "random 5" in shown.out
    one = Small(PX).decode(extremes(Small(PX))[0])
    supernet(**asked, read=[str(one)], networks=0, as_json=True, quiet=True)
    result = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in result["networks"]] == ["largest", "smallest", str(one)]
    for key in ("top1", "estimate"):
        assert result["networks"][2][key] == result["networks"][0][key]
    assert result["networks"][2]["standard_error"] > 0
    with pytest.raises(InvalidArgument, match="name its space"):
        supernet(**asked, epochs=2)
