"""Any ONNX network, on this computer: predicted from its kernels, beside what it takes.

    python -m tests.bench_onnx --db runs/onnx.db

measures kernels and random networks (some minutes, once), then the networks that examine: the nine
of `onnx`'s own test data and the zoo. None of these teaches anything. Beside the model stand the plain
sum of its kernels and a line in multiply-adds, fitted on the same random networks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonenas import data, devices, latency_model, space
from phonenas.commands_kernels import profile_kernels
from phonenas.latency_model.kernel_fitting import fit_kernels, network_of
from phonenas.latency_model.kernel_latency import SUMS, kernel_sums
from phonenas.latency_model.onnx_kernels import OnnxNetwork, cut
from phonenas.progress import Bars
from phonenas.space.errors import UncoveredOperator
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.to_onnx import to_onnx

KERNELS, RANDOM, OF_SPACE = 500, 24, 16


def light() -> list[Path]:
    """The nine networks that come with `onnx`."""
    import onnx.backend.test

    return sorted((Path(onnx.backend.test.__file__).parent / "data/light").glob("*.onnx"))


def examined() -> dict[str, tuple[OnnxNetwork, str]]:
    """By the subject's name in the store: cut, and how it is called here."""
    found = {}
    for path in light():
        network = cut(path)
        found[OnnxFile.at(path, network.macs).key] = (network, path.stem)
    for name in space.zoo.names():
        architecture = space.zoo.network(name)
        found[str(architecture)] = (cut(to_onnx(architecture)), name)
    return found


def bench_onnx(
    say: Callable[[str], None], db: Path, device: str = "local", kernels: int = KERNELS
) -> None:
    """Measure what the store lacks, fit without the examined networks, and print the scores.

    Args:
        say: Takes each line.
        db: The store; what is in it is not measured again.
        device: Of devices.toml.
        kernels: How many to measure in all.
    """
    wanted = examined()
    mnas = space.MnasNet()
    teaching = [mnas.decode(g) for g in mnas.sample(np.random.default_rng(7), OF_SPACE)]
    named = [*teaching, *(space.zoo.network(n) for n in space.zoo.names())]
    files = [OnnxFile.at(p, cut(p).macs) for p in light()]
    started = time.monotonic()
    with data.MeasurementStore(db) as store, devices.connect(device) as phone, Bars(False) as bars:
        profile_kernels(phone, store, kernels, RANDOM, on_event=bars.profiling)
        subjects = [devices.Subject("network", a) for a in named]
        subjects += [devices.Subject("onnx", f) for f in files]
        outcome = devices.measure(subjects, on=phone, into=store, on_event=bars.profiling)
        measurements = store.measurements(outcome.conditions)
    measured_s = time.monotonic() - started
    started = time.perf_counter()
    model = fit_kernels(measurements, leave_out=wanted)
    fit_s = time.perf_counter() - started
    say(f"{len(model.measured)} kernels (curve: {model.regressor.mape:.1%} held out), "
        f"{model.networks} whole networks (held out: {model.mape:.1%}); measured or found in "
        f"{measured_s:.0f} s, fitted in {fit_s:.1f} s")  # fmt: skip
    say(f"{outcome.conditions}\n{outcome.verdict.text}")
    wholes = {m.subject: m.latency_ms for m in measurements}
    taught = [
        (network.macs, m.latency_ms)
        for m in measurements
        if m.subject not in wanted and (network := network_of(m)) is not None
    ]
    slope, start = np.polyfit(*np.array(taught).T, 1, w=1 / np.array(taught)[:, 1])
    rows = []
    for subject, (network, name) in wanted.items():
        if subject not in wholes:
            say(f"{name}: not measured: {outcome.unstable.get(subject, 'no reason told')}")
            continue
        began = time.perf_counter()
        try:
            told = model.predict(network, device)
        except UncoveredOperator as error:
            say(f"{name}: not covered: {error}")
            continue
        spent = time.perf_counter() - began
        alone = kernel_sums(network, model.alone_ms(network.kernels))
        plain = alone[:, : list(SUMS).index("folded") + 1].sum()
        real = wholes[subject]
        rows.append((told.ms, told.low_ms, told.high_ms, real, plain, slope * network.macs + start))
        say(
            f"{name:22s} ○ {told.ms:8.2f} ms, {told.low_ms:.2f} to {told.high_ms:.2f}, ● {real:8.2f} ms "
            f"{told.ms / real - 1:+6.1%}  {'covered' if told.covered else 'beyond'}  {spent:.3f} s"
        )
    if not rows:
        return
    ms, low, high, real_ms, plain_ms, line_ms = np.array(rows).T
    scores = {
        "model": latency_model.score(ms, real_ms, low, high),
        "plain sum": latency_model.score(plain_ms, real_ms),
        "line in MACs": latency_model.score(np.maximum(line_ms, 1e-6), real_ms),
    }
    for name, s in scores.items():
        say(f"{name:14s} n {s.n}  MAPE {s.mape:.1%}  bias {s.bias:+.1%}  acc10 {s.acc10:.2f}  "
            f"Spearman {s.spearman:.3f}  90 % covers {s.coverage90:.0%}" if s.coverage90 == s.coverage90
            else f"{name:14s} n {s.n}  MAPE {s.mape:.1%}  bias {s.bias:+.1%}  acc10 {s.acc10:.2f}  "
            f"Spearman {s.spearman:.3f}")  # fmt: skip


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--db", type=Path, default=Path("runs/onnx.db"))
    words.add_argument("--device", default="local")
    words.add_argument("--kernels", type=int, default=KERNELS)
    told = words.parse_args()
    told.db.parent.mkdir(parents=True, exist_ok=True)
    bench_onnx(print, told.db, told.device, told.kernels)


if __name__ == "__main__":
    main()
