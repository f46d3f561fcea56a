"""Batches: the same tensors whatever reads them, and the official augmentation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from patience import wait_for

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402

from phonenas.data import ImageSet, read_images  # noqa: E402
from phonenas.search.training import loading  # noqa: E402
from phonenas.search.training.augment import (  # noqa: E402
    _STEP,
    _mixed,
    central_boxes,
    draws,
    order,
    random_boxes,
)
from phonenas.search.training.distributed import Processes  # noqa: E402
from phonenas.search.training.pipeline import Batches, resampled  # noqa: E402
from phonenas.space.errors import InvalidArgument, InvalidImage, TaskFailed  # noqa: E402

RNG = np.random.default_rng(0)
# Of ImageNet's colours, as everyone normalises by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def made(n: int = 20, side: int = 32, classes: int = 4) -> ImageSet:
    return ImageSet.of(
        RNG.integers(0, 256, (n, side, side, 3), dtype=np.uint8), np.arange(n) % classes
    )


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that compresses and resizes well."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(y / 9 + c) + np.cos(x / 7 - c) for c in range(3)]
    return ((np.stack(planes, -1) + 2) / 4 * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ImageSet:
    """Eleven files of several sizes and formats in two classes."""
    root = tmp_path_factory.mktemp("set")
    sizes = [(40, 60), (64, 48), (33, 33), (30, 80), (100, 90), (16, 16)]
    for number in range(11):
        folder = root / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        ending = "png" if number % 3 else "jpg"
        Image.fromarray(smooth(*sizes[number % 6])).save(folder / f"{number:02}.{ending}")
    return read_images(root)


def whole(batches: Batches, epoch: int, start_step: int = 0):
    seen = list(batches.epoch(epoch, start_step))
    return torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])


def bytes_of(x):
    """What was normalised, in [0, 255]."""
    return (x * torch.tensor(STD).reshape(3, 1, 1) + torch.tensor(MEAN).reshape(3, 1, 1)) * 255


# -- chance ---------------------------------------------------------------------------------------


def test_the_mixer_is_splitmix64():
    states = _STEP * np.arange(1, 4).astype(np.uint64)
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _mixed(states).tolist() == published


def test_numbers_belong_to_an_image_and_not_to_a_batch():
    every = draws(7, 3, np.arange(1000), range(12))
    assert np.array_equal(draws(7, 3, np.array([912, 4]), range(5, 9)), every[[912, 4], 5:9])
    assert 0 <= every.min()
    assert every.max() < 1
    assert np.abs(every.mean(0) - 0.5).max() < 5 / np.sqrt(12 * 1000)
    flat = np.corrcoef(every.T) - np.eye(12)
    assert np.abs(flat).max() < 5 / np.sqrt(1000)
    for other in (draws(8, 3, np.arange(1000), range(12)), draws(7, 4, np.arange(1000), range(12))):
        assert not (other == every).any()
        assert abs(np.corrcoef(other.ravel(), every.ravel())[0, 1]) < 0.05
    assert not np.array_equal(
        draws(2**64, 0, np.arange(3), range(2)), draws(0, 0, np.arange(3), range(2))
    )


def test_an_order_is_a_permutation_of_its_own_for_each_epoch():
    first, second = order(0, 0, 500), order(0, 1, 500)
    assert sorted(first) == sorted(second) == list(range(500))
    assert (first == second).sum() < 10
    assert np.array_equal(first, order(0, 0, 500))
    assert abs(np.corrcoef(first, np.arange(500))[0, 1]) < 0.2


def test_random_crops_keep_the_ranges_of_the_official_code():
    n = 4000
    heights, widths = np.full(n, 375.0), np.full(n, 500.0)
    y, x, h, w = random_boxes(heights, widths, 224, 1, 0, np.arange(n)).T
    whole_or_central = (h == w) & (h == 375 * 0.875)
    assert whole_or_central.mean() < 0.01
    y, x, h, w = (v[~whole_or_central] for v in (y, x, h, w))
    assert all(np.array_equal(v, np.rint(v)) for v in (y, x, h, w))
    share = h * w / (375 * 500)
    assert share.min() >= 0.1
    assert share.max() <= 1
    assert share.min() < 0.12
    assert share.max() > 0.9
    # Half a pixel of rounding in the width.
    assert np.all(np.abs(w - np.clip(w, h * 3 / 4 - 0.5, h * 4 / 3 + 0.5)) == 0)
    assert y.min() >= 0 and x.min() >= 0
    assert (y + h).max() <= 375 and (x + w).max() <= 500
    # Uniform in the aspect, and in the place that is left.
    assert abs((w / h).mean() - (3 / 4 + 4 / 3) / 2) < 0.02
    assert abs((y / np.maximum(375 - h, 1))[h < 300].mean() - 0.5) < 0.03


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (300, 2), (9, 8)])
def test_crops_of_extreme_images_fall_back_to_the_centre(height, width):
    n = 200
    sizes = np.full(n, float(height)), np.full(n, float(width))
    y, x, h, w = random_boxes(*sizes, 8, 0, 0, np.arange(n)).T
    assert h.min() > 0 and w.min() > 0
    assert y.min() >= 0 and x.min() >= 0
    assert (y + h).max() <= height and (x + w).max() <= width
    if max(height, width) > 100:  # no crop of that aspect covers a tenth
        assert np.array_equal(np.stack([y, x, h, w], 1), central_boxes(*sizes, 8))


# -- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 768), (300, 256), (128, 200)])
def test_evaluation_is_resize_256_and_the_central_224(tmp_path, height, width):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(smooth(height, width)).save(folder / "0.png")
    x, y = next(Batches(read_images(tmp_path), 1, 224, augment=None).epoch(0))
    short = min(height, width)
    with Image.open(folder / "0.png") as image:
        at = image.resize((width * 256 // short, height * 256 // short), Image.Resampling.BILINEAR)
    left, top = (at.width - 224) / 2, (at.height - 224) / 2
    expected = np.asarray(at)[int(top) : int(top) + 224, int(left) : int(left) + 224]
    assert x.shape == (1, 3, 224, 224)
    assert x.dtype == torch.float32
    assert y.tolist() == [0]
    away = np.abs(bytes_of(x)[0].permute(1, 2, 0).numpy() - expected)
    assert away.max() <= (1.01 if (top, left) == (int(top), int(left)) else 8)


def test_small_images_at_their_own_side_are_only_normalised():
    images = made(5)
    x, y = next(Batches(images, 8, 32, augment=None).epoch(0))
    by_hand = (images.array() / 255 - np.array(MEAN)) / np.array(STD)
    assert np.abs(x.numpy() - by_hand.transpose(0, 3, 1, 2)).max() < 1e-5
    assert x.is_contiguous()
    assert y.tolist() == images.labels.tolist()


def test_small_squares_are_seen_whole_and_others_by_their_centre():
    sizes = np.array([28.0, 32.0, 40.0, 28.0]), np.array([28.0, 32.0, 40.0, 20.0])
    boxes = central_boxes(*sizes, 32)
    assert boxes[:, 2].tolist() == [28, 32, 35, 17.5]
    assert boxes[3].tolist() == [5.25, 1.25, 17.5, 17.5]


@pytest.mark.parametrize("px", [8, 24, 32, 50])
def test_resizing_in_torch_is_pillows(px):
    picture = smooth(40, 52)
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    boxes = np.array([[3.0, 4.5, 30.0, 40.25], [0, 0, 40, 52], [10, 20, 7, 6]])
    ours = resampled(planes.expand(3, -1, -1, -1), boxes, px, np.array([False, False, True]))
    for box, seen, mirrored in zip(boxes, ours, (False, False, True), strict=True):
        y, x, h, w = box
        theirs = np.asarray(
            Image.fromarray(picture).resize(
                (px, px), Image.Resampling.BILINEAR, (x, y, x + w, y + h)
            )
        )
        theirs = theirs[:, ::-1] if mirrored else theirs
        # Pillow rounds to whole numbers after each of two passes.
        assert np.abs(seen.permute(1, 2, 0).numpy() - theirs).max() < 1.1


# -- augmentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["small", "shift"])
def test_small_images_move_within_a_black_border_and_flip(augment):
    images = made(40)
    batches = Batches(images, 8, 32, augment=augment, seed=5)
    (numbers,) = [np.concatenate(batches.indices(2))]
    seen = bytes_of(whole(batches, 2)[0]).numpy()
    drawn = draws(5, 2, numbers, range(3))
    for row, number in enumerate(numbers):
        framed = np.pad(images.image(number), ((4, 4), (4, 4), (0, 0)))
        y, x = (int(d * 9) for d in drawn[row, 1:])
        expected = framed[y : y + 32, x : x + 32]
        if augment == "small" and drawn[row, 0] < 0.5:
            expected = expected[:, ::-1]
        assert np.abs(seen[row] - expected.transpose(2, 0, 1)).max() < 1e-2
    assert 5 < (drawn[:, 0] < 0.5).sum() < 35


@pytest.mark.parametrize("augment", ["imagenet", "small", "shift", None])
def test_files_and_arrays_of_the_same_images_give_the_same_tensors(tmp_path, augment):
    pictures = np.stack([np.roll(smooth(48, 48), 5 * i, i % 2) for i in range(6)])
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    kinds = read_images(tmp_path), ImageSet.of(pictures, np.zeros(6, int))
    of_files, of_arrays = (
        whole(Batches(k, 3, 24, augment=augment, seed=1, shuffle=True), 4)[0] for k in kinds
    )
    # Rounding apart: Pillow keeps bytes.
    assert (bytes_of(of_files) - bytes_of(of_arrays)).abs().max() < 1.2


def test_large_photographs_are_decoded_at_a_fraction_and_look_the_same(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    picture = smooth(700, 900)
    Image.fromarray(picture).save(folder / "0.jpg", quality=95)
    batches = Batches(read_images(tmp_path), 1, 32, augment="imagenet", seed=3)
    in_memory = Batches(ImageSet.of(picture[None], [0]), 1, 32, augment="imagenet", seed=3)
    for epoch in range(4):
        one, other = (bytes_of(whole(b, epoch)[0]) for b in (batches, in_memory))
        assert (one - other).abs().mean() < 3


def test_epochs_differ_and_each_sees_every_image_once():
    images = made(40)
    batches = Batches(images, 8, 32, augment="small")
    first, again, second = (whole(batches, e) for e in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], second[0])
    assert sorted(np.concatenate(batches.indices(1))) == list(range(40))


# -- the same whatever reads ----------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["imagenet", "small"])
def test_an_image_is_augmented_alike_in_any_batch(files, augment):
    for images in (files, made(11, 20)):
        parts = [
            whole(Batches(images, b, 24, augment=augment, seed=2, shuffle=False), 1)
            for b in (1, 4, 11)
        ]
        for x, y in parts[1:]:
            assert torch.equal(y, parts[0][1])
            assert torch.allclose(x, parts[0][0], atol=1e-5)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_an_epoch_goes_on_at_any_step(files, step):
    for images in (files, made(11)):
        batches = Batches(images, 3, 24, seed=9)
        everything = list(batches.epoch(5))
        rest = list(batches.epoch(5, step))
        assert len(rest) == len(batches) - step == 3 - step
        for (x, y), (x_again, y_again) in zip(everything[step:], rest, strict=True):
            assert torch.equal(x, x_again)
            assert torch.equal(y, y_again)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_same_global_batches(world):
    images = made(20)
    one = Batches(images, 6, 32, augment="small", seed=4)
    ranks = [
        Batches(images, 6, 32, augment="small", seed=4, processes=Processes(r, world))
        for r in range(world)
    ]
    assert {len(r) for r in ranks} == {len(one)} == {3}
    for whole_, *shares in zip(one.epoch(2), *(r.epoch(2) for r in ranks), strict=True):
        for rank, (x, y) in enumerate(shares):
            assert torch.equal(x, whole_[0][rank::world])
            assert torch.equal(y, whole_[1][rank::world])


def test_a_rank_for_which_nothing_is_left_gets_an_empty_tensor(files):
    for images in (files.subset(range(5)), made(5)):
        last = Batches(images, 4, 16, augment=None, processes=Processes(1, 2))
        *_, (x, y) = last.epoch(0)
        assert x.shape == (0, 3, 16, 16)
        assert y.shape == (0,)


def test_processes_read_the_same_tensors_and_survive_a_broken_image(files, tmp_path):
    """One pair of processes for all that is asked of them: starting some takes a second."""
    here = Batches(files, 2, 24, seed=1)
    with_workers = Batches(files, 2, 24, seed=1, loaders=2)
    expected = list(here.epoch(3))
    begun = with_workers.epoch(0)
    next(begun)  # left in mid-epoch
    del begun
    for start in (0, 2):
        seen = list(with_workers.epoch(3, start))
        assert len(seen) == 5 - start
        for (x, y), (x_there, y_there) in zip(expected[start:], seen, strict=True):
            assert torch.equal(x, x_there)
            assert torch.equal(y, y_there)
    broken = Path(files.source) / files.name(4)
    content = broken.read_bytes()
    try:
        broken.write_bytes(content[:40])
        with pytest.raises(InvalidImage, match=broken.name):
            list(with_workers.epoch(3))
    finally:
        broken.write_bytes(content)
    assert torch.equal(next(with_workers.epoch(3))[0], expected[0][0])
    with_workers.close()


class Slow(loading.FileBatches):
    """Each batch takes longer than one look at the processes."""

    def __getitem__(self, batch):
        time.sleep(1.3)
        return torch.full((1, 8, 8, 3), int(batch[1][0]), dtype=torch.uint8), None


@pytest.mark.slow
def test_slow_batches_are_waited_for_also_those_of_an_epoch_that_was_left(files, monkeypatch):
    monkeypatch.setattr(loading, "LOOK_S", 1)
    loader = loading.Loader(Slow(files, 8, None, 0, 0), 1, False)
    first, second = ([(0, np.array([i])) for i in range(*ends)] for ends in ((0, 9), (10, 12)))
    begun = loader(first)
    assert next(begun)[0].unique().tolist() == [0]
    del begun
    assert [pixels.unique().tolist() for pixels, _ in loader(second)] == [[10], [11]]


@pytest.mark.slow
def test_a_process_that_is_killed_is_an_error_with_a_way_on(files):
    batches = Batches(files, 1, 24, loaders=1)
    steps = batches.epoch(0)
    next(steps)
    for process in batches._loader.loader._iterator._workers:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TaskFailed, match="fewer than 1 loader processes"):
        for epoch in range(3):
            list(batches.epoch(epoch) if epoch else steps)
    batches.close()
    assert len(list(batches.epoch(0))) == 11


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL])
def test_processes_end_with_the_one_that_reads_them(files, tmp_path, environment, how):
    script = tmp_path / "training.py"
    script.write_text(
        "import signal, sys, time\n"
        "from phonenas.data import read_images\n"
        "from phonenas.search.training.pipeline import Batches\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    batches = Batches(read_images(sys.argv[1]), 2, 24, loaders=2)\n"
        "    next(batches.epoch(0))\n"
        "    print(*(w.pid for w in batches._loader.loader._iterator._workers), flush=True)\n"
        "    time.sleep(4321)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), str(Path(files.source).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as job:
        try:
            workers = [int(pid) for pid in job.stdout.readline().split()]
            assert len(workers) == 2
            assert all(alive(pid) for pid in workers)
            job.send_signal(how)
            wait_for("their end", lambda: not any(alive(pid) for pid in workers))
        finally:
            job.kill()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_broken_image_stops_its_step_by_name(files, tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(smooth(20, 20)).save(folder / "0.png")
    (folder / "1.jpg").write_bytes(b"nothing")
    steps = Batches(read_images(tmp_path), 1, 16, augment=None).epoch(0)
    next(steps)
    with pytest.raises(InvalidImage, match=r"1\.jpg"):
        next(steps)


# -- sizes and refusals ---------------------------------------------------------------------------


def test_a_set_smaller_than_a_batch_is_one_batch_in_evaluation_and_refused_in_training():
    images = made(5)
    evaluated = list(Batches(images, 64, 32, augment=None).epoch(0))
    assert [len(y) for _, y in evaluated] == [5]
    with pytest.raises(InvalidArgument, match=r"5 images, fewer than one batch of 64.*at most 5"):
        Batches(images, 64, 32, augment="small")
    kept = list(Batches(images, 64, 32, augment="small", shuffle=False).epoch(0))
    assert [len(y) for _, y in kept] == [5]


def test_the_last_batch_is_dropped_in_training_and_kept_in_evaluation():
    images = made(10)
    for augment, shuffle, expected in (
        ("small", None, [4, 4]),
        (None, None, [4, 4, 2]),
        ("small", False, [4, 4, 2]),
        (None, True, [4, 4]),
    ):
        batches = Batches(images, 4, 32, augment=augment, shuffle=shuffle)
        assert [len(y) for _, y in batches.epoch(0)] == expected
        assert len(batches) == len(expected)


def test_order_follows_the_set_unless_it_is_shuffled():
    images = made(10)
    plain = Batches(images, 4, 32, augment=None)
    assert np.concatenate(plain.indices(3)).tolist() == list(range(10))
    shuffled = Batches(images, 5, 32, augment=None, shuffle=True)
    assert sorted(np.concatenate(shuffled.indices(3))) == list(range(10))
    assert np.concatenate(shuffled.indices(3)).tolist() != list(range(10))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"batch": 0}, "a batch is at least 1"),
        ({"resolution_px": 4}, "resolution is at least 8"),
        ({"augment": "mixup"}, "imagenet, small, shift"),
        ({"seed": -1}, "a seed is at least 0"),
        ({"loaders": -1}, "number of loader processes is at least 0"),
        ({"processes": Processes(0, 3)}, "3 processes cannot share batches of 4"),
    ],
)
def test_what_makes_no_batches_is_refused(asked, words):
    given = {"batch": 4, "resolution_px": 32, **asked}
    with pytest.raises(InvalidArgument, match=words):
        Batches(made(8), **given)


def test_epochs_and_steps_that_are_none_are_refused_at_once():
    batches = Batches(made(8), 4, 32)
    for number, step in ((-1, 0), (0, -1), (0, 3)):
        with pytest.raises(InvalidArgument):
            batches.epoch(number, step)
    assert list(batches.epoch(0, 2)) == []
    with pytest.raises(InvalidArgument, match="no image"):
        Batches(made(8).subset([]), 4, 32)
