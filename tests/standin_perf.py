"""Speaks as onnxruntime_perf_test does, with times of ONNX Runtime's Python package; for tests."""

import sys
import time
from pathlib import Path

import numpy
import onnxruntime

words = sys.argv[1:]
flags = {}
while words and words[0].startswith("-"):
    name = words.pop(0)
    flags[name] = "" if name == "-I" else words.pop(0)
model, results = words
if set(flags) - {"-I", "-m", "-r", "-e", "-x", "-y", "-o", "-C", "-p"}:
    print(f"ERROR: Unknown command line flags: {flags}", file=sys.stderr)
    sys.exit(1)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(flags["-x"])
if "-p" in flags:
    options.enable_profiling = True
    options.profile_file_prefix = flags["-p"]
began = time.perf_counter()
try:
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
except Exception as error:  # noqa: BLE001 - whatever it is, told as the program would
    print(f"{error}".replace("\n", " "), file=sys.stderr)
    sys.exit(255)
loaded = time.perf_counter() - began
given = session.get_inputs()[0]
kind = {"tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(float16)": "float16"}.get(
    given.type, "float32"
)
feeds = {given.name: numpy.zeros(given.shape, kind)}
times = []
for _ in range(int(flags["-r"]) + 1):
    start = time.perf_counter()
    session.run(None, feeds)
    times.append(time.perf_counter() - start)
if "-p" in flags:
    session.end_profiling()
first, *times = times
with Path(results).open("a", encoding="utf-8") as file:
    for number, seconds in enumerate(times):
        file.write(f"model,{seconds:.6g},12345678,100,{number}\n")
total = sum(times)
print("Setting intra_op_num_threads to", flags["-x"])
print(f"Session creation time cost: {loaded:.6g} s")
print(f"First inference time cost: {int(first * 1e3)} ms")
print(f"Total inference time cost: {total:.6g} s")
print(f"Total inference requests: {len(times)}")
print(f"Average inference time cost total: {total / len(times) * 1e3:.6f} ms")
print(f"Total inference run time: {total:.6g} s")
print(f"Number of inferences per second: {len(times) / total:.6g} ")
