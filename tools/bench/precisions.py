"""Operators and networks in int8: do they run whole in 8 bits, are both forms alike, how fast.

    python -m tools.bench.precisions operators [--space mnasnet] [--resolution 224] [--compared 12]

writes each operator of a space in int8 as TFLite, and counts those that LiteRT runs whole in
XNNPACK. Every twelfth is written as ONNX, too, from the same table of ranges: the share of outputs
that are within one quantisation step of ONNX Runtime's is printed, all values together and the
worst operators. ONNX Runtime computes without saturation of pairs (`session.x64quantprecision`).

    python -m tools.bench.precisions times [--rounds 9] [--network mnasnet-a1]

times some operators and a network in float32 and int8, in ONNX Runtime and LiteRT side by side, one
thread: each round runs all files in a random order, a file's number is the median over rounds of
the median of its runs, and the ratio is that of the rounds' pairs, with its quartiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas import space
from phonenas.data.files import TemporaryFolder
from phonenas.devices.runtimes import engine_litert, engine_onnxruntime
from phonenas.space import Architecture, Operator
from phonenas.space.lowering.calibration import Ranges, calibrated
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.tflite import to_tflite

__all__ = ["apart", "main", "what_runs"]

#: Of some kinds of operator, at sizes that MnasNet has at 224 px.
KINDS = (
    "stem_k3_s2_224x224x3_32",
    "conv_k3_s1_skip_28x28x40_40",
    "dsconv_k3_s1_112x112x32_16",
    "mbconv3_k3_s1_skip_56x56x24_24",
    "mbconv3_k5_s2_se6_56x56x24_40",
    "mbconv6_k3_s1_skip_14x14x80_80",
    "mbconv6_k5_s1_pool_14x14x80_96",
    "mbconv6_k5_s1_se40_skip_7x7x160_160",
    "head1280_7x7x320_1000",
)
_RUNS, _WARM = 15, 4
Array = npt.NDArray[Any]


def what_runs(operator: Operator, ranges: Ranges, path: Path) -> str:
    """What runs an operator's TFLite form, which is written at a path."""
    path.write_bytes(to_tflite(operator, precision="int8", ranges=ranges))
    return engine_litert.Engine({}).load(str(path)).provider


def apart(operator: Operator, ranges: Ranges, path: Path) -> npt.NDArray[np.float64]:
    """How many steps the outputs of the TFLite form at a path are from the ONNX form's."""
    import onnxruntime

    shape = (1, operator.in_channels, operator.in_px, operator.in_px)
    x: Array = np.random.default_rng(1).standard_normal(shape, np.float32)
    given = x
    if operator.kind != "stem":
        low, high = ranges["input"]
        levels = np.rint((x - low) / ((high - low) / 255)).clip(0, 255)
        x, given = levels.astype(np.uint8), (levels - 128).astype(np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        to_onnx(operator, precision="int8", ranges=ranges).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    (by_onnx,) = session.run(None, {"input": x})
    by_tflite = _litert(path, given)
    low, high = ranges["output"]
    if by_onnx.dtype == np.uint8:
        difference, step = by_onnx.astype(np.float64) - 128 - by_tflite, 1.0
    else:
        difference, step = by_onnx - by_tflite, (max(high, 0) - min(low, 0)) / 255
    steps: npt.NDArray[np.float64] = np.abs(difference) / step
    return steps


def _litert(path: Path, x: Array) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(entry["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    found: Array = interpreter.get_tensor(output["index"])
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def _operators(name: str, resolution_px: int, compared: int) -> None:
    operators = space.get(name, resolution_px).operators()
    whole, within, values = 0, 0, 0
    shares: list[tuple[float, str]] = []
    with TemporaryFolder() as folder:
        path = folder / "operator.tflite"
        for place, operator in enumerate(operators):
            ranges = calibrated(operator)
            provider = what_runs(operator, ranges, path)
            whole += provider == "XNNPACK"
            if provider != "XNNPACK":
                print(f"{operator.key}: {provider}", flush=True)
            if place % compared == 0:
                steps = apart(operator, ranges, path)
                near = int((steps <= 1.001).sum())
                within, values = within + near, values + steps.size
                shares.append((near / steps.size, operator.key))
            if (place + 1) % 200 == 0:
                print(
                    f"{place + 1} of {len(operators)}: {whole} whole in XNNPACK; "
                    f"{within / values:.4%} within a step",
                    flush=True,
                )
    print(f"{name} at {resolution_px} px: {len(operators)} operators in int8")
    print(f"run whole in XNNPACK: {whole}")
    print(f"outputs within one step of ONNX Runtime's: {within / values:.4%} of {values:,}")
    below = sum(share < 0.99 for share, _ in shares)
    print(f"operators with fewer than 99 %: {below} of {len(shares)}; the worst:")
    for share, key in sorted(shares)[:5]:
        print(f"  {share:.2%}  {key}")


def _files(folder: Path, network: str) -> dict[tuple[str, str, str], Callable[[], Any]]:
    subjects: list[Operator | Architecture] = [Operator.parse(key) for key in KINDS]
    subjects.append(space.zoo.network(network))
    by_onnx = engine_onnxruntime.Engine({"provider": "CPUExecutionProvider"})
    by_litert = engine_litert.Engine({})
    runs: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for place, subject in enumerate(subjects):
        name = subject.key if isinstance(subject, Operator) else network
        for precision in ("float32", "int8"):
            path = folder / f"{place}-{precision}.onnx"
            path.write_bytes(to_onnx(subject, precision=precision).SerializeToString())
            runs[name, "ONNX Runtime", precision] = by_onnx.load(str(path)).run
            path = path.with_suffix(".tflite")
            path.write_bytes(to_tflite(subject, precision=precision))
            runs[name, "LiteRT", precision] = by_litert.load(str(path)).run
    return runs


def _median_ms(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(_WARM + _RUNS):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e3)
    return median(times[_WARM:])


def _times(rounds: int, network: str) -> None:
    rng = np.random.default_rng(0)
    with TemporaryFolder() as folder:
        runs = _files(folder, network)
        times: dict[tuple[str, str, str], list[float]] = {key: [] for key in runs}
        keys = list(runs)
        for _ in range(rounds):
            for at in rng.permutation(len(keys)):
                times[keys[at]].append(_median_ms(runs[keys[at]]))
    print("| subject | runtime | float32, ms | int8, ms | int8 / float32 | quartiles |")
    print("|---|---|---|---|---|---|")
    for name, runtime, precision in keys:
        if precision != "float32":
            continue
        whole, small = (times[name, runtime, p] for p in ("float32", "int8"))
        ratios = np.divide(small, whole)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"| {name} | {runtime} | {median(whole):.3f} | {median(small):.3f} | {middle:.2f} "
            f"| {low:.2f} to {high:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    operators = commands.add_parser("operators")
    operators.add_argument("--space", default="mnasnet")
    operators.add_argument("--resolution", type=int, default=224)
    operators.add_argument("--compared", type=int, default=12)
    times = commands.add_parser("times")
    times.add_argument("--rounds", type=int, default=9)
    times.add_argument("--network", default="mnasnet-a1")
    given = parser.parse_args()
    if given.command == "operators":
        _operators(given.space, given.resolution, given.compared)
    else:
        _times(given.rounds, given.network)


if __name__ == "__main__":
    main()
