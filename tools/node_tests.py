"""Every node test of `onnx` through `phonenas show`: an answer or a named refusal, counted.

python -m tools.node_tests [--every N]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from phonenas.latency_model.graphs.onnx_cut import cut, to_measure
from phonenas.space.errors import PhonenasError

__all__ = ["answers", "main"]


def answers(every: int = 1) -> Iterator[tuple[str, str]]:
    """Name of each test, and what came of it: "answered", or the name of an error.

    An error that is none of phonenas leaves as it is.
    """
    from onnx.backend.test.loader import load_model_tests

    cases = load_model_tests(kind="node")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases[::every]:
            model = Path(case.model_dir, "model.onnx") if case.model_dir else None
            path = Path(folder, "case.onnx")
            if model is not None and model.is_file():
                path.write_bytes(model.read_bytes())
            else:
                path.write_bytes(case.model.SerializeToString())
            try:
                network = cut(path)
                if not network.kernels or not to_measure(network):
                    yield case.name, "answered: nothing is computed"
                    continue
                yield case.name, "answered"
            except PhonenasError as error:
                text = str(error)
                if "\n" in text or ("case.onnx" not in text and "input" not in text):
                    raise AssertionError(f"{case.name}: {text}") from error
                yield case.name, type(error).__name__ + ": " + _kind(text)


def _kind(text: str) -> str:
    kinds = (
        "does work that depends on the input values",
        "and no tensor",
        "no fixed shape, or is no tensor",
        "computes nothing",
        "does not run here",
        "sparse weights",
        "free side",
        "not a valid ONNX model",
    )
    return next((k for k in kinds if k in text), text)


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--every", type=int, default=1, help="take every Nth test")
    parser.add_argument("--list", action="store_true", help="print each refusal")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for name, what in answers(given.every):
        counts[what] += 1
        if given.list and not what.startswith("answered"):
            print(f"{name}: {what}")
    for what, n in counts.most_common():
        print(f"{n:6,}  {what}")
    print(f"{sum(counts.values()):6,}  in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
