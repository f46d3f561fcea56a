"""Gradient-boosted trees as all models here grow and load them: equal rows give equal trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import UnsupportedFormat

if TYPE_CHECKING:
    import lightgbm

__all__ = ["grown", "loaded"]

Floats = npt.NDArray[np.float64]

_QUIET: dict[str, Any] = {"verbosity": -1, "num_threads": 1}
_FIXED = {"bagging_fraction": 0.9, "bagging_freq": 1, "deterministic": True, "force_row_wise": True}


def grown(
    rows: Floats, target: Floats, rounds: int, parameters: dict[str, Any], **data: Any
) -> lightgbm.Booster:
    """Trees fitted on rows (n, features) and a target (n,).

    Args:
        rows, target: What they are fitted on.
        rounds: Number of trees.
        parameters: LightGBM's, beside those that make equal rows give equal trees.
        data: Further arguments of `lightgbm.Dataset`.
    """
    import lightgbm

    dataset = lightgbm.Dataset(rows, target, params=_QUIET, **data)
    return lightgbm.train(_FIXED | _QUIET | parameters, dataset, num_boost_round=rounds)


def loaded(text: str, what: str) -> lightgbm.Booster:
    """Trees from LightGBM's text.

    Raises:
        UnsupportedFormat: The text is damaged; `what` says of which model.
    """
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise UnsupportedFormat(f"{what} are damaged: {error}") from error
