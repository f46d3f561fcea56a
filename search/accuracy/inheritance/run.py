"""An estimator whose networks inherit weights, in the folder of a run."""

from __future__ import annotations

from pathlib import Path

from phonenas.space.errors import InvalidArgument

from ..cache import Cached
from ..estimator import AccuracyEstimator
from ..quantisation.quantised import InPrecisions, Quantised
from ..successive_halving import SuccessiveHalving

__all__ = ["inheriting_in"]


def inheriting_in(into: str | Path | None, accuracy: AccuracyEstimator) -> AccuracyEstimator:
    """The same estimator, its trainings kept in the folder of a run.

    Args:
        into: The folder.
        accuracy: With an `ancestry`.
    Raises:
        InvalidArgument: There is no folder, a cache of its own, a second try of what failed in a
            run that has begun, or several precisions.
    """
    whole = accuracy.estimator if isinstance(accuracy, SuccessiveHalving) else accuracy
    if into is None:
        raise InvalidArgument("weights are inherited within the folder of a run: give into")
    if isinstance(whole, InPrecisions):
        raise InvalidArgument(
            "networks inherit weights in a search in one precision: leave --inherit out, or name "
            "a --precision"
        )
    base = whole.base if isinstance(whole, Quantised) else whole
    if isinstance(base, Cached):
        if base.path.resolve() != (Path(into) / "accuracy.db").resolve():
            raise InvalidArgument(
                "networks inherit weights from trainings of their own run, which a cache of many "
                "runs has not: leave --accuracy-cache out"
            )
        if base.again and (Path(into) / "run.json").exists():
            raise InvalidArgument(
                f"--again would change whose weights are inherited in {into}, which has begun: "
                "give another --out"
            )
    if isinstance(accuracy, SuccessiveHalving):
        return accuracy  # `within` a folder it keeps its trainings there
    return accuracy.after(accuracy.epochs, Path(into) / "trainings")
