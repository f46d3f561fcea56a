"""One thread for linear algebra: small matrices gain nothing from more, and sums stay the same.

With several threads the order of additions, and so the last digits of a fitted model, would hang
on the computer; and on a busy one the threads wait for each other, four times as long in all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["one_thread"]

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one thread in all numerical libraries."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        import scipy.linalg  # noqa: F401 - only libraries that are loaded by now are limited
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return function(*args, **kwargs)

    return limited
