"""ImageNet: top-1 on ImageNet after a full schedule, fitted on published networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import parsed, strict
from phonenas.space import AdditiveTable, Genomes, SearchSpace
from phonenas.space.errors import UnknownName, UnsupportedFormat, nearest
from phonenas.space.graph import Classifier

from ..estimator import Accuracy, AccuracyEstimator, Request, refuse_foreign
from ..surrogate.surrogate import CHANCE, SKIP_POINTS
from .features import FEATURES, features, refused_share, sums
from .fit import FORMAT, VERSION, features_of
from .model import Model, ModelFile
from .published import RECIPES

__all__ = ["ImageNet", "file_path", "read"]

Floats = npt.NDArray[np.float64]
UNKNOWN_POINTS = 1.5  # standard error of the known parts, beyond which a network is extrapolated
_LEAST_PX = 64  # the fit has 96 to 300
_MARGIN = 0.25  # of a feature's range, likewise


def file_path() -> Path:
    """The file that is shipped with the package."""
    return Path(str(resources.files("phonenas"))) / "data/tables/imagenet_top1.json"


@lru_cache(maxsize=4)
def read(path: Path) -> tuple[ModelFile, Model, str]:
    """A file of the model: its content, ready to estimate, and its SHA-256.

    Raises:
        UnsupportedFormat: Damaged, of another kind or version.
    """
    remedy = "Install phonenas again."
    try:
        text = path.read_bytes()
        file = strict(parsed(text), ModelFile)
        known = (FORMAT, VERSION, list(RECIPES), list(FEATURES))
        if (file.format, file.version, file.recipes, file.features) != known:
            raise UnsupportedFormat(f"{path} is of another kind or version. {remedy}")
        return file, Model(file), hashlib.sha256(text).hexdigest()
    except OSError as error:
        raise UnsupportedFormat(f"{path} cannot be read: {error}. {remedy}") from error
    except UnsupportedFormat:
        raise
    except ValueError as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {remedy}") from error


class ImageNet(AccuracyEstimator):
    """Top-1 on ImageNet's validation images after a full schedule.

    Lifetime: reads its file once, then only computes.

    Fitted on about 140 published figures of 16 families (MBConv networks, those that they came from
    and RegNet) and on 300 networks of the 16-epoch table. The standard error is that of a network
    of a family that was not in the fit, after a training as its recipe says. The differences
    between networks of one search are smaller than that.

    A layer where an identity would fit and which has another skip costs 3.5 points times the share
    of such layers, as in `Surrogate`; no published network of the fit has one.

    A network is `outside` where it has such a layer, where what the fit knows of its features has a
    standard error above 1.5 points, or where a feature lies beyond the range of the fit by more
    than a quarter of it.

    Args:
        recipe: How the network will be trained; see `published.RECIPES`.
        path: The model's file; the package's own by default.
    Raises:
        UnknownName: No such recipe.
        UnsupportedFormat: The file is damaged.

    >>> from phonenas.space import zoo
    >>> answer = ImageNet().estimate([zoo.network("mnasnet-a1"), zoo.network("mnasnet-small")])
    >>> [f"{t:.0%}" for t in answer.top1]
    ['75%', '66%']
    """

    name, form = "imagenet", "imagenet[:RECIPE]"

    def __init__(self, recipe: str = "paper", path: str | Path | None = None) -> None:
        if recipe not in RECIPES:
            raise UnknownName(
                f"no recipe of full schedules is called {recipe!r}. {nearest(recipe, RECIPES)}"
            )
        _, self._model, self._sha256 = read(Path(path) if path is not None else file_path())
        self.recipe, self._number = recipe, list(RECIPES).index(recipe)
        self.schedule = RECIPES[recipe]
        self.note = f"top-1 on ImageNet after a full schedule: {self.schedule}"

    @classmethod
    def make(cls, request: Request) -> ImageNet:
        return cls(request.argument or "paper")

    @property
    def digest(self) -> str:
        return f"imagenet-{VERSION}-{self.recipe}-{self._sha256[:12]}"

    @property
    def cost_s(self) -> float:
        return 5e-6

    def estimate(self, architectures: Sequence[Classifier]) -> Accuracy:
        for a in architectures:
            refuse_foreign(self.name, a.classes, a.resolution_px, _LEAST_PX)
        return self._answer(*features_of(architectures))

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        some = space.example()
        refuse_foreign(self.name, some.classes, some.resolution_px, _LEAST_PX)
        table = AdditiveTable(space, sums)

        def estimate(genomes: Genomes) -> Accuracy:
            raw = table(genomes)
            return self._answer(features(raw, np.full(len(raw), float(space.resolution_px))), raw)

        return estimate

    def _answer(self, given: Floats, raw: Floats) -> Accuracy:
        model = self._model
        answer = model.estimate(given, self._number)
        margin = _MARGIN * (model.high - model.low)
        beyond = ((given < model.low - margin) | (given > model.high + margin)).any(axis=1)
        deducted = SKIP_POINTS * refused_share(raw)
        outside = beyond | (answer.unknown > UNKNOWN_POINTS) | (deducted > 0)
        top1 = np.clip((answer.top1 - deducted) / 100, CHANCE, 1.0)
        return Accuracy(top1, np.hypot(answer.error, deducted) / 100, outside)
