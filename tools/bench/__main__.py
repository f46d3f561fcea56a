"""`make bench`: speed as ratios and rates, side by side in one run. Printed, never asserted.

Rates on a shared computer change from run to run: compare the lines of one run. `--million` adds
the search of a million evaluations (some minutes).
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # rates are of one core

import numpy as np  # noqa: E402

from phonenas import data, devices, latency_model, space  # noqa: E402
from phonenas.data import Conditions, Measurement, Round  # noqa: E402
from phonenas.devices.measuring.events import Subject  # noqa: E402
from phonenas.devices.measuring.protocol import Protocol  # noqa: E402
from phonenas.devices.registry import assemble  # noqa: E402
from phonenas.devices.settings import DeviceSettings  # noqa: E402
from phonenas.latency_model.fitting import fit_measurements  # noqa: E402
from phonenas.space.lowering.onnx import to_onnx  # noqa: E402
from phonenas.space.lowering.tflite import to_tflite  # noqa: E402


def best_s(work: Callable[[], object], times: int = 5) -> float:
    """Shortest of several timings, in seconds: what the code needs when left alone."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def say(what: str, figure: str, floor: str = "") -> None:
    print(f"{what:<66} {figure:>22}   {floor}", flush=True)


def made_up_model(mnas: space.MnasNet) -> latency_model.LatencyModel:
    """A model of the whole space from a made-up roofline: speed does not ask for truth."""
    conditions = Conditions(
        "bench",
        "roofline",
        "0",
        "none",
        "0",
        "0",
        "none",
        "none",
        1,
        "one",
        "none",
        origin="simulated",
    )

    def ms(operator: space.Operator) -> float:
        return 0.01 + operator.macs / 4e7 + operator.params / 4e7

    def taken(kind: str, subject: str, value: float) -> Measurement:
        # type: ignore[arg-type]
        return Measurement(kind, subject, conditions, (Round((value,)), Round((value,))))

    rng = np.random.default_rng(0)
    networks = [mnas.decode(g) for g in mnas.sample(rng, 20)]
    return fit_measurements(
        conditions,
        [taken("operator", o.key, ms(o)) for o in mnas.operators()]
        + [
            taken("network", str(a), sum(map(ms, a.operators())) * rng.normal(0.95, 0.01))
            for a in networks
        ],
    )


def genomes_to_latency(mnas: space.MnasNet, model: latency_model.LatencyModel) -> None:
    genomes = mnas.sample(np.random.default_rng(0), 1_000_000)
    raw = space.AdditiveTable(mnas, lambda o: float(model.table.ms[o]))
    calibrated, intervals = model.on(mnas), model.intervals(mnas)
    few = [mnas.decode(g) for g in genomes[:300]]
    one_by_one = best_s(lambda: model.latency_ms(few)) / len(few)
    rows = (
        ("table", raw, ">= 5 M"),
        ("table, calibrated", calibrated, ""),
        ("table, calibrated, 90 % interval", intervals, ""),
    )
    for label, work, floor in rows:
        seconds = best_s(lambda work=work: work(genomes)) / len(genomes)  # type: ignore[misc]
        say(
            f"genomes to latency, {label}",
            f"{1 / seconds / 1e6:.2f} M/s",
            f"{floor}  {one_by_one / seconds:,.0f} times one network at a time",
        )


def building(mnas: space.MnasNet) -> None:
    operators = mnas.operators()[::7]
    network = space.zoo.network("mnasnet-a1")
    for name, floor, build in (
        ("ONNX", "<= 3 ms", lambda o: to_onnx(o).SerializeToString()),
        ("TFLite", "<= 5 ms", to_tflite),
    ):
        taken = [best_s(lambda o=o, b=build: b(o), 3) for o in operators]  # type: ignore[misc]
        say(
            f"{name} of an operator, mean of {len(operators)} (median, worst)",
            f"{statistics.mean(taken) * 1e3:.2f} ms",
            f"{floor}  ({statistics.median(taken) * 1e3:.2f}, {max(taken) * 1e3:.1f})",
        )
        whole_s = best_s(lambda b=build: b(network))  # type: ignore[misc]
        say(f"{name} of MnasNet-A1", f"{whole_s * 1e3:.0f} ms")


def overhead(mnas: space.MnasNet) -> None:
    """Wall time of a profile over its seconds of computing, for operators of 1 ms and more."""
    ways: list[tuple[str, str, devices.Device]] = [("local", "<= 1.3", devices.connect("local"))]
    with contextlib.ExitStack() as stack:
        try:
            from servers import Adbd, AdbServer

            phone = Adbd()
            stack.callback(phone.stop)
            server = AdbServer()
            stack.callback(server.stop)
            server.connect(phone)
            os.environ.update(server.settings)
            settings = DeviceSettings("adb", "adb", phone.address, python=sys.executable)
            ways.append(("adb", "<= 1.5", assemble(settings)))
        except BaseException as error:  # noqa: BLE001 - pytest's skip is not an Exception
            say("overhead over adb", "not measured", f"{error}. Get adbd:  bash tools/real.sh")
        heavy = [o for o in mnas.operators() if o.macs > 5e7][::2]
        store = stack.enter_context(
            data.MeasurementStore(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "x.db")
        )
        with ways[0][2] as here:
            quick = Protocol(operator_rounds=1)
            subjects = [Subject("operator", o) for o in heavy]
            seen = devices.measure(subjects, on=here, into=store, protocol=quick).results
        slow = [s for s in subjects if s.text in seen and seen[s.text].latency_ms >= 1.0]
        for name, floor, device in ways:
            with device:
                taken = devices.measure(slow, on=device, into=store, again=name == "local")
            mean_ms = statistics.mean(m.latency_ms for m in taken.results.values())
            say(
                f"profile of {taken.measured} operators (mean {mean_ms:.1f} ms) over {name}: wall "
                "over computing",
                f"{taken.seconds / taken.busy_s:.2f}",
                f"{floor}  {taken.seconds:.0f} s, {taken.rejected} readings rejected",
            )


def start_up() -> None:
    def run(*words: str) -> float:
        return best_s(
            lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True), 9
        )

    bare = run("-c", "pass")
    say("python -c pass", f"{bare:.3f} s")
    say("import phonenas", f"{run('-c', 'import phonenas'):.3f} s", "< 0.2 s")
    say("phonenas --help", f"{run('-m', 'phonenas', '--help'):.3f} s", "< 0.4 s")


def published() -> None:
    """The models on tables that others measured, where these lie beside the checkout."""
    from tools.bench.accuracy import bench_accuracy
    from tools.bench.networks import bench_networks
    from tools.bench.search import bench_on_a_model, bench_search
    from tools.bench.surrogate import bench_surrogate
    from tools.bench.transfer import bench_transfer

    if not (Path(__file__).resolve().parents[3] / "shared" / "data").is_dir():
        say(
            "tables that others measured",
            "not here",
            "shared/data does not lie beside the checkout",
        )
        return
    bench_surrogate(say)
    bench_networks(lambda line: print(line, flush=True))
    bench_search(say)
    bench_on_a_model(say)
    bench_transfer(say)
    bench_accuracy(say)


def main() -> None:
    from tools.bench.search import bench_learning, bench_million, bench_rates, bench_shares

    mnas = space.MnasNet()
    began = time.perf_counter()
    mnas.operators()
    say(
        "mnasnet space, its operators",
        f"{time.perf_counter() - began:.2f} s",
        f"{len(mnas.operators()):,} operators",
    )
    start_up()
    building(mnas)
    overhead(mnas)
    began = time.perf_counter()
    model = made_up_model(mnas)
    say(
        "fit of a latency model",
        f"{time.perf_counter() - began:.1f} s",
        f"{len(model.table):,} operators",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "m.json")
        say(
            "model file",
            f"{path.stat().st_size / 1e3:.0f} kB",
            f"loads in {best_s(lambda: latency_model.load(path)) * 1e3:.0f} ms",
        )
    genomes_to_latency(mnas, model)
    bench_rates(say, mnas, model)
    bench_shares(say, mnas, model)
    bench_learning(say, mnas, model)
    if "--million" in sys.argv[1:]:
        bench_million(say, model)
    published()


if __name__ == "__main__":
    main()
