"""`make bench`: images a second of each stage of loading, beside a bare loop over the same work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10_12k.npz"
SECONDS = 4.0


def rate(
    steps: Callable[[], Iterator[int]], clock: Callable[[], float] = time.process_time
) -> float:
    """Images a second over at least `SECONDS`, after one step that is not counted.

    In seconds that this process computed, whatever else the computer did; by the wall clock where
    other processes do the work.
    """
    row = steps()
    next(row)
    began, seen = clock(), 0
    for count in row:
        seen += count
        if clock() - began > SECONDS:
            break
    return seen / (clock() - began)


def photographs(root: Path, count: int = 96) -> Path:
    """JPEG files as ImageNet's mostly are: 500×375, quality 90, some 100 KB."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:375, 0:500]
    for number in range(count):
        folder = root / "train" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        a, b = rng.uniform(8, 40, 2)
        plane = np.stack([np.sin(x / a + c) + np.cos(y / b + c) for c in range(3)], -1)
        grain = rng.normal(0, 0.25, plane.shape)
        pixels = ((plane + grain + 2.5) / 5).clip(0, 1) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    return root


def bench_pipeline(say: Callable[..., None]) -> None:
    """Print images a second; `say` takes a subject, a figure and a comparison."""
    try:
        import torch
        from PIL import Image
    except ImportError as error:
        say("loading of images", "not measured", str(error))
        return

    from phonenas.data import ImageSet, read_images
    from phonenas.search.training.pipeline import Batches

    torch.set_num_threads(1)

    def endless(batches: Any) -> Callable[[], Iterator[int]]:
        def steps() -> Iterator[int]:
            for epoch in range(10_000):
                for x, _ in batches.epoch(epoch):
                    yield len(x)

        return steps

    if CIFAR.is_file():
        images = read_images(CIFAR)
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
        images = ImageSet.of(pixels, np.arange(10_000) % 10)
    array = images.array()
    assert array is not None

    def bare_memory() -> Iterator[int]:
        mean = torch.full((3, 1, 1), 120.0)
        for step in range(10**9):
            at = step * 128 % (len(array) - 128)
            x = torch.from_numpy(array[at : at + 128].copy()).permute(0, 3, 1, 2).contiguous()
            x.float().sub_(mean).div_(mean)
            yield 128

    bare = rate(bare_memory)
    say("32 px in memory, copied and normalised only (bare loop)", f"{bare:,.0f} images/s")
    for augment in (None, "shift", "small", "imagenet"):
        speed = rate(endless(Batches(images, 128, 32, augment=augment)))
        say(
            f"32 px in memory, {augment or 'evaluation'}",
            f"{speed:,.0f} images/s",
            f"{speed / bare:.2f} of bare",
        )

    with tempfile.TemporaryDirectory() as folder:
        files = read_images(photographs(Path(folder)))
        paths = [files.path(i) for i in range(len(files))]  # type: ignore[attr-defined]

        def decoding(resize: bool) -> Callable[[], Iterator[int]]:
            def steps() -> Iterator[int]:
                while True:
                    for path in paths:
                        with Image.open(path) as image:
                            rgb = image.convert("RGB")
                            if resize:
                                rgb = rgb.resize((224, 224), Image.Resampling.BILINEAR)
                            np.asarray(rgb)
                        yield 1

            return steps

        say(
            "500×375 JPEG, decoded by Pillow only (bare loop)",
            f"{rate(decoding(False)):,.0f} images/s",
        )
        bare = rate(decoding(True))
        say("500×375 JPEG, decoded and resized to 224 (bare loop)", f"{bare:,.0f} images/s")
        for augment, loaders in ((None, 0), ("imagenet", 0), ("imagenet", 1), ("imagenet", 2)):
            batches = Batches(files, 16, 224, augment=augment, loaders=loaders)
            speed = rate(endless(batches), time.perf_counter if loaders else time.process_time)
            batches.close()
            where = f"{loaders} loader processes" if loaders else "in this process"
            say(
                f"500×375 JPEG to 224, {augment or 'evaluation'}, {where}",
                f"{speed:,.0f} images/s",
                f"{speed / bare:.2f} of bare",
            )
        began = time.perf_counter()
        read_images(folder, broken="skip")
        say(
            "500×375 JPEG, checked whole at opening",
            f"{len(files) / (time.perf_counter() - began):,.0f} images/s",
        )


if __name__ == "__main__":

    def say_plain(what: str, figure: str, goal: str = "") -> None:
        print(f"{what:<66} {figure:>18}   {goal}", flush=True)

    bench_pipeline(say_plain)
