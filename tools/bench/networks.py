"""Whole networks from the operators of others, on the published tables: lines for `make bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from phonenas.latency_model.benchmarks.networks import networks

SHARED = Path(__file__).parents[3] / "shared" / "data"
MOBILE = [
    "efficientnet_edge*",
    "fbnet*",
    "fdmobilenet*",
    "ghostnet",
    "mnasnet*",
    "mobilenet*",
    "proxyless*",
    "spnasnet",
]
PHONES = {
    "tflite": ("pixel4", "s10", "iphone7", "iphonexs"),
    "torch": ("pixel4", "s10", "iphonexs"),
}
BESIDE = {
    "booster": "plain trees and a line",
    "measured_sum": "measured operators and a line",
    "raw_sum": "raw operator sum",
    "macs": "MACs",
}


def bench_networks(say: Callable[[str], object], test: list[str] | None = None) -> None:
    """Print a line a phone with its baselines, and the mean of each table.

    Args:
        say: Takes one line.
        test: Patterns of the networks to predict; by default the 42 mobile ones.
    """
    for table, phones in PHONES.items():
        operators = SHARED / f"edge_{table}_cnn_ops_gpu.csv"
        whole = SHARED / f"edge_{table}_cnn_e2e.csv"
        if not (operators.is_file() and whole.is_file()):
            say(f"networks, {table}: skipped, there is no {operators}")
            continue
        frames = pd.read_csv(operators), pd.read_csv(whole)
        scores = []
        for phone in phones:
            result = networks(*frames, device=f"{phone}|gpu|float", test=test or MOBILE)
            s = result["score"]
            scores.append(s)
            others = ", ".join(f"{v} {result[k]['mape']:.1%}" for k, v in BESIDE.items())
            say(
                f"networks, {table} {phone}: {result['n_test']} from {result['n_train']}, MAPE "
                f"{s['mape']:.2%}, acc10 {s['acc10']:.1%}, Spearman {s['spearman']:.4f}, bias "
                f"{s['bias']:+.1%}, coverage {s['coverage90']:.0%}, operators "
                f"{result['operator_mape']:.1%} ({others})"
            )
            if result["left_out"]:
                names = ", ".join(result["left_out_networks"])
                say(f"networks, {table} {phone}: left out, without a time: {names}")
        mean = {k: float(np.mean([s[k] for s in scores])) for k in ("mape", "acc10", "spearman")}
        say(
            f"networks, {table}, mean of {len(scores)} phones: MAPE {mean['mape']:.2%}, acc10 "
            f"{mean['acc10']:.1%}, Spearman {mean['spearman']:.4f}"
        )


if __name__ == "__main__":
    bench_networks(print)
