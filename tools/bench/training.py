"""`bench_training`: training's images a second beside a bare torch loop, interleaved in one run.

    python -m tools.bench.training [--rounds 5] [--network mnasnet-small] [--resolution 32]

The bare loop does what any tutorial does: torch's own optimizer, the loss, nothing kept. Both
have the same network, the same batches out of the same pipeline and the same precision.
With a GPU, A1 at 224 px in mixed precision beside it. Seconds are those of the processor on a
CPU. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from phonenas.data.images.image_set import ImageSet
from phonenas.search.training.distributed import Processes
from phonenas.search.training.pipeline import Batches
from phonenas.search.training.recipe import Recipe, recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.step import resolved_precision
from phonenas.search.training.trainer import train
from phonenas.space import Architecture, zoo
from phonenas.space.lowering.torch import to_torch


def now_s(device: torch.device) -> float:
    """A clock: of this process on a CPU, so that other programs do not count; else of the wall."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def bare_s(network: Architecture, images: ImageSet, short: Recipe, device: torch.device) -> float:
    """Seconds of a plain loop over the recipe's epochs."""
    module = to_torch(network, dropout=short.dropout, seed=0).to(device)
    gpu = device.type == "cuda"
    layout = torch.channels_last
    module = module.to(memory_format=layout).train()
    weights = module.parameters()
    if short.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            weights, 0.05, momentum=0.9, nesterov=True, weight_decay=short.weight_decay
        )
    else:
        optimizer = torch.optim.RMSprop(
            weights, 0.01, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=short.weight_decay
        )
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(
        resolved_precision(short.precision, device)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)
    batches = Batches(
        images,
        short.batch,
        network.resolution_px,
        augment="small",
        processes=Processes(device=device),
    )
    began = now_s(device)
    for epoch in range(short.epochs):
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            with torch.autocast(device.type, kind, enabled=kind is not None):
                out = module(x.to(memory_format=layout))
                loss = torch.nn.functional.cross_entropy(
                    out, y, label_smoothing=short.label_smoothing
                )
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    if gpu:
        torch.cuda.synchronize()
    return now_s(device) - began


def ours_s(network: Architecture, images: ImageSet, short: Recipe, device: torch.device) -> float:
    """Seconds of `train` from first step to end, with checkpoints, without evaluation."""
    began = 0.0

    def start(event: object) -> None:
        nonlocal began
        began = began or now_s(device)

    with tempfile.TemporaryDirectory() as into:
        train(
            network,
            images,
            recipe=short,
            into=into,
            resources=Resources(str(device)),
            on_event=start,
        )
        if device.type == "cuda":
            torch.cuda.synchronize()
        return now_s(device) - began


def bench_training(
    say: Callable[..., None],
    network: Architecture,
    short: Recipe,
    images: int,
    rounds: int,
    device: str = "cpu",
) -> None:
    """Print images a second of both and their ratio: the median over rounds, side by side."""
    px = network.resolution_px
    pixels = np.random.default_rng(0).integers(0, 256, (images, px, px, 3)).astype(np.uint8)
    made = ImageSet.of(pixels, np.arange(images) % network.classes)
    chosen = torch.device(device)
    bare_s(network, made, replace(short, epochs=1, warmup_epochs=0.0), chosen)
    taken = []
    for number in range(rounds):
        pair = [bare_s, ours_s] if number % 2 else [ours_s, bare_s]
        seconds = {way: way(network, made, short, chosen) for way in pair}
        taken.append((seconds[bare_s], seconds[ours_s]))
    done = short.epochs * (images // short.batch) * short.batch
    ratio = statistics.median(bare / ours for bare, ours in taken)
    bare, ours = (done / statistics.median(column) for column in zip(*taken, strict=True))
    about = f"{short.name}, {px} px, batch {short.batch}, {chosen.type}, {short.precision}"
    say(f"training, {about}: bare loop", f"{bare:,.0f} images/s")
    say(f"training, {about}: train()", f"{ours:,.0f} images/s", f"ratio {ratio:.3f}, >= 0.95")


def say(what: str, figure: str, floor: str = "") -> None:
    print(f"{what:<78} {figure:>18}   {floor}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", default="mnasnet-small")
    parser.add_argument("--resolution", type=int, default=32)
    # Passes of some eight seconds: of two, the ratio scattered from .90 to 1.04 where nothing
    # changed.
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--recipe", action="append", choices=["small", "paper"])
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = replace(zoo.find(given.network, 1.0, given.resolution), classes=10)
    for name in given.recipe or ("small", "paper"):
        short = recipe(name, epochs=3, batch=64, augment="small")
        bench_training(say, network, short, given.images, given.rounds)
    if torch.cuda.is_available():
        a1 = replace(zoo.find("mnasnet-a1", 1.0, 224), classes=1000)
        short = recipe("paper", epochs=3, batch=256, augment="small")
        bench_training(say, a1, short, 2560, 3, "cuda")
    else:
        say("training, A1 at 224 px in mixed precision", "no GPU here")


if __name__ == "__main__":
    main()
