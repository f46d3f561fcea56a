"""Any ONNX network, on this computer: predicted from its kernels, beside what it takes.

    python -m tools.bench.onnx_files --db runs/onnx.db [--file NETWORK.onnx ...]

measures kernels and random networks (some minutes, once), then the networks of the score: the nine
of `onnx`'s own test data, the zoo, 20 small random networks and the files that are given. The model
is fitted on none of these. Small networks are scored by themselves, too. The baselines are the
plain sum of its kernels and a line in multiply-adds, fitted on the same random networks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from phonenas import data, devices, latency_model, space
from phonenas.cli.devices import profile_kernels
from phonenas.cli.progress import Bars
from phonenas.latency_model.graphs.onnx_cut import OnnxNetwork, cut
from phonenas.latency_model.kernel_fitting import fit_kernels, network_of
from phonenas.latency_model.measured_kernels import MeasuredKernels
from phonenas.space.errors import UncoveredOperator
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.onnx_file import OnnxFile

KERNELS, RANDOM, OF_SPACE = 500, 24, 16
SMALL = range(500, 520)  # numbers that no profile measures
SLOW_MS = 2.0  # from here on a network is not small


def light() -> list[Path]:
    """The nine networks that come with `onnx`."""
    import onnx.backend.test

    return sorted((Path(onnx.backend.test.__file__).parent / "data/light").glob("*.onnx"))


def tested(files: Sequence[Path]) -> dict[str, tuple[OnnxNetwork, str]]:
    """By the subject's name in the store: its kernels, and its name here."""
    networks = {}
    for path in files:
        network = cut(path)
        networks[OnnxFile.at(path, network.macs).key] = (network, path.stem)
    for number in SMALL:
        drawn = RandomCNN(number, small=True)
        networks[drawn.key] = (cut(drawn.to_onnx()), drawn.key)
    for name in space.zoo.names():
        architecture = space.zoo.network(name)
        networks[str(architecture)] = (cut(to_onnx(architecture)), name)
    return networks


def bench_onnx(
    say: Callable[[str], None],
    db: Path,
    device: str = "local",
    kernels: int = KERNELS,
    more: Sequence[Path] = (),
) -> None:
    """Measure what the store lacks, fit without the networks of the score, and print the scores.

    Args:
        say: Takes each line.
        db: The store; what is in it is not measured again.
        device: A name in devices.toml.
        kernels: Number to measure in all.
        more: Further files to predict and to measure.
    """
    paths = [*light(), *more]
    wanted = tested(paths)
    mnas = space.MnasNet()
    random = [mnas.decode(g) for g in mnas.sample(np.random.default_rng(7), OF_SPACE)]
    named = [*random, *(space.zoo.network(n) for n in space.zoo.names())]
    files: list[OnnxFile | RandomCNN] = [OnnxFile.at(p, cut(p).macs) for p in paths]
    files += [RandomCNN(number, small=True) for number in SMALL]
    started = time.monotonic()
    with data.MeasurementStore(db) as store, devices.connect(device) as phone, Bars(False) as bars:
        profile_kernels(phone, store, kernels, RANDOM, on_event=bars.profiling)
        subjects = [devices.Subject("network", a) for a in named]
        subjects += [devices.Subject("onnx", f) for f in files]
        outcome = devices.measure(subjects, on=phone, into=store, on_event=bars.profiling)
        measurements = store.measurements(outcome.conditions)
    measured_s = time.monotonic() - started
    started = time.perf_counter()
    model = fit_kernels(outcome.conditions, measurements, leave_out=wanted)
    fit_s = time.perf_counter() - started
    mape = model.scores["model"].mape if model.scores else float("nan")
    times = model.times
    assert isinstance(times, MeasuredKernels)
    say(
        f"{len(times.measured)} kernels ({times.regressor.mape:.1%} off, left out), "
        f"{len(model.examined)} whole networks ({mape:.1%} off, left out); measured or read in "
        f"{measured_s:.0f} s, fitted in {fit_s:.1f} s"
    )
    say(f"{outcome.conditions}\n{outcome.verdict.text}")
    wholes = {m.subject: m.latency_ms for m in measurements}
    known = [
        (network.macs, m.latency_ms)
        for m in measurements
        if m.subject not in wanted and (network := network_of(m)) is not None
    ]
    slope, start = np.polyfit(*np.array(known).T, 1, w=1 / np.array(known)[:, 1])
    rows = []
    for subject, (network, name) in wanted.items():
        if subject not in wholes:
            say(f"{name}: not measured: {outcome.unstable.get(subject, 'no reason given')}")
            continue
        began = time.perf_counter()
        try:
            predicted = model.predict([network])
        except UncoveredOperator as error:
            say(f"{name}: not covered: {error}")
            continue
        spent = time.perf_counter() - began
        plain = times.alone_ms(network.kernels).sum()
        real = wholes[subject]
        ms, *ends = (float(v[0]) for v in (predicted.ms, predicted.low_ms, predicted.high_ms))
        rows.append((ms, *ends, real, plain, slope * network.macs + start))
        covered = "covered" if predicted.covered[0] else "beyond"
        say(
            f"{name:22s} ○ {ms:8.2f} ms, {ends[0]:.2f} to {ends[1]:.2f}, ● "
            f"{real:8.2f} ms {ms / real - 1:+6.1%}  {covered} "
            f" {spent:.3f} s"
        )
    if not rows:
        return
    every = np.array(rows)
    for title, some in (("all", every[:, 3] > 0), ("small", every[:, 3] < SLOW_MS)):
        if some.any():
            say(title)
            scored(say, every[some])


def scored(say: Callable[[str], None], rows: np.ndarray) -> None:
    """Print the score of the model and of the baselines; rows as `bench_onnx` makes them."""
    ms, low, high, real_ms, plain_ms, line_ms = rows.T
    by_macs = latency_model.score(line_ms, real_ms)
    scores = {
        "model": latency_model.score(ms, real_ms, low, high, macs_mape=by_macs.mape),
        "plain sum": latency_model.score(plain_ms, real_ms),
        "line in MACs": by_macs,
    }
    for name, s in scores.items():
        covers = "" if s.coverage90 != s.coverage90 else f"  90 % covers {s.coverage90:.0%}"
        say(
            f"{name:14s} n {s.n}  MAPE {s.mape:.1%}  bias {s.bias:+.1%}  acc10 {s.acc10:.2f}  "
            f"Spearman {s.spearman:.3f}{covers}"
        )
    if scores["model"].note:
        say(scores["model"].note)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, default=Path("runs/onnx.db"))
    parser.add_argument("--device", default="local")
    parser.add_argument("--kernels", type=int, default=KERNELS)
    parser.add_argument("--file", type=Path, action="append", default=[])
    given = parser.parse_args()
    given.db.parent.mkdir(parents=True, exist_ok=True)
    bench_onnx(print, given.db, given.device, given.kernels, given.file)


if __name__ == "__main__":
    main()
