"""Every node test of `onnx` is taken apart or refused by name: `python -m tools.node_tests`."""

from __future__ import annotations

import pytest

from tools.node_tests import answers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the tests' own sums
def test_node_tests_are_answered_or_refused() -> None:
    found = dict(answers(every=47))
    assert len(found) >= 40
    answered = [n for n, what in found.items() if what == "answered"]
    assert len(answered) > 0.8 * len(found)
    kinds = {what.split(": ")[0] for what in found.values()} - {"answered"}
    assert kinds <= {"UncoveredOperator", "UnsupportedFormat", "InvalidArgument"}
