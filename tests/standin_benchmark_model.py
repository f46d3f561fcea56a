"""Speaks as benchmark_model does, with times of LiteRT's interpreter; for tests alone."""

import sys
import time

flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
known = {
    "graph",
    "num_threads",
    "num_runs",
    "min_secs",
    "warmup_runs",
    "warmup_min_secs",
    "use_xnnpack",
    "use_gpu",
    "use_nnapi",
    "enable_op_profiling",
}
for name in sorted(set(flags) - known):
    print(f"Unconsumed cmdline flags: --{name}={flags[name]}")
print(f"INFO: STARTING!\nINFO: Graph: [{flags['graph']}]")
try:
    from ai_edge_litert.interpreter import Interpreter

    began = time.perf_counter()
    model = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
    model.allocate_tensors()
    init_us = (time.perf_counter() - began) * 1e6
except ValueError as error:
    print(f"ERROR: {error}\nERROR: Failed to initialize the model")
    sys.exit(1)
print("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")
print(
    "INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by "
    "the delegate."
)


def report(least, seconds):
    times = []
    began = time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        model.invoke()
        times.append((time.perf_counter() - start) * 1e6)
    ordered = sorted(times)
    mean = sum(times) / len(times)
    spread = (sum((t - mean) ** 2 for t in times) / len(times)) ** 0.5
    tail = f" p5={ordered[len(times) // 20]:.6g} median={ordered[len(times) // 2]:.6g}"
    tail += f" p95={ordered[len(times) * 19 // 20]:.6g}"
    print(
        f"INFO: count={len(times)} first={times[0]:.6g} curr={times[-1]:.6g} min={ordered[0]:.6g} "
        f"max={ordered[-1]:.6g} avg={mean:.6g} std={spread:.6g}{tail}"
    )
    return times[0], mean


first, warm = report(int(flags["warmup_runs"]), float(flags["warmup_min_secs"]))
_, mean = report(int(flags["num_runs"]), float(flags["min_secs"]))
print(
    f"INFO: Inference timings in us: Init: {init_us:.6g}, First inference: {first:.6g}, "
    f"Warmup (avg): {warm:.6g}, Inference (avg): {mean:.6g}"
)
if flags.get("enable_op_profiling") == "true":
    # The program's own words; the time of a run is shared evenly among the file's nodes.
    operations = [o["op_name"] for o in model._get_ops_details() if o["op_name"] != "DELEGATE"]
    head = "\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]"
    each = mean / 1e3 / len(operations)
    print("INFO: Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    print(f"{head}\n\tTfLiteXNNPackDelegate\t0\t{mean / 1e3:.3f}\t100%\t100%\t0\t1\t[out]:99\n")
    print("Delegate internal: ")
    print("============================== Run Order ==============================")
    print(head)
    for number, operation in enumerate(operations):
        print(f"\tDelegateOpInvoke\t0\t{each:.6f}\t1%\t1%\t0\t1\tDelegate/{operation}:{number}")
