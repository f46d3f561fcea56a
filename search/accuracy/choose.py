"""estimator(): an accuracy estimator by the words that a user writes for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...space.errors import InvalidArgument, UnknownName, nearest
from ..workers import Serial
from .cache import Cached
from .estimator import AccuracyEstimator

if TYPE_CHECKING:
    from ...data.images import ImageSet
    from ...space import SearchSpace
    from ..workers import Workers

__all__ = ["KINDS", "estimator", "takes_images"]


@dataclass(frozen=True)
class _Asked:
    """What a user gave."""

    what: str
    space: SearchSpace | None
    images: ImageSet | None
    workers: Workers | None
    gpus: float | None
    hold_out: float | None
    epochs: int | None
    loaders: int
    seed: int
    unit: str | None


@dataclass(frozen=True)
class _Kind:
    """An estimator: how it is written, whether it takes images, and how it is made."""

    form: str
    images: str  # "no", "may" or "must"
    make: Callable[[_Asked], AccuracyEstimator]


def _surrogate(asked: _Asked) -> AccuracyEstimator:
    from .surrogate import Surrogate

    if asked.what.endswith((".csv", ".parquet")):
        raise InvalidArgument(
            f"{asked.what} is a table: look networks up in it by table:{asked.what}, or fit a surrogate "
            f"to it:  phonenas fit-accuracy {asked.what} --out mine.json"
        )
    return Surrogate(asked.what or None)


def _additive(asked: _Asked) -> AccuracyEstimator:
    from .additive import Additive

    return Additive()


def _table(asked: _Asked) -> AccuracyEstimator:
    from .table import Imported

    return Imported(_named(asked, "table:FILE.csv"), unit=asked.unit, space=asked.space)


def _zero_cost(asked: _Asked) -> AccuracyEstimator:
    from .zero_cost import ZeroCost

    proxies = tuple((asked.what or "rank").split("+"))
    given = {"images": asked.images, "proxies": proxies, "space": asked.space, "seed": asked.seed}
    return _spread(ZeroCost, given, asked.workers)


def _training(asked: _Asked) -> AccuracyEstimator:
    from ..training.recipe import recipe as recipe_named
    from .training import ShortTraining

    assert asked.images is not None
    return ShortTraining(
        asked.images,
        recipe=recipe_named(asked.what or "proxy", epochs=asked.epochs),
        hold_out=0.1 if asked.hold_out is None else asked.hold_out,
        seed=asked.seed,
        workers=asked.workers,
        gpus=asked.gpus or 0.0,
        loaders=asked.loaders,
    )


def _supernet(asked: _Asked) -> AccuracyEstimator:
    from .supernet import Supernet

    assert asked.images is not None
    folder = Path(_named(asked, "supernet:FOLDER"))
    if asked.workers is None:
        return Supernet(folder, asked.images, space=asked.space)
    # On workers a GPU is not seen unless it is lent; so all read on the CPU.
    given = {
        "folder": str(folder.resolve()), "images": asked.images, "space": asked.space, "device": "cpu",
    }  # fmt: skip
    return _spread(Supernet, given, asked.workers)


def _spread(
    make: Callable[..., AccuracyEstimator], given: dict[str, Any], workers: Workers | None
) -> AccuracyEstimator:
    from .spread import Spread

    found = make(**given)
    return found if workers is None else Spread(found, make, given, workers)


KINDS = {
    "surrogate": _Kind("surrogate[:FILE]", "no", _surrogate),
    "zero_cost": _Kind("zero_cost[:PROXY]", "may", _zero_cost),
    "training": _Kind("training[:RECIPE]", "must", _training),
    "supernet": _Kind("supernet:FOLDER", "must", _supernet),
    "table": _Kind("table:FILE", "no", _table),
    "additive": _Kind("additive", "no", _additive),
}


def _split(words: str) -> tuple[str, str]:
    name, _, what = words.strip().partition(":")
    if name not in KINDS:
        forms = ", ".join(kind.form for kind in KINDS.values())
        hint = nearest(name, KINDS).split(" Known:")[0] if "Did you" in nearest(name, KINDS) else ""
        raise UnknownName(
            f"no accuracy estimator is called {name!r}. {hint}{' ' if hint else ''}Known: {forms}."
        )
    return name, what


def _named(asked: _Asked, form: str) -> str:
    if not asked.what:
        raise InvalidArgument(f"{form}: what to read is missing after the colon")
    return asked.what


def takes_images(words: str) -> bool:
    """Whether an estimator judges by images.

    Raises:
        UnknownName: There is none of that name; all are listed.
    """
    return KINDS[_split(words)[0]].images != "no"


def estimator(
    words: str = "surrogate",
    *,
    space: SearchSpace | None = None,
    images: ImageSet | None = None,
    workers: Workers | None = None,
    gpus: float | None = None,
    hold_out: float | None = None,
    epochs: int | None = None,
    loaders: int = 0,
    seed: int = 0,
    unit: str | None = None,
    cache: str | Path | None = None,
    again: bool = False,
) -> AccuracyEstimator:
    """The estimator that a user named.

    Networks are judged with as many classes as the images have, whatever their own text says: a
    search space's networks end in 1,000. Their latency stays that of the space's classes.

    Args:
        words: surrogate[:FILE], zero_cost[:PROXY], training[:RECIPE], supernet:FOLDER, table:FILE
            or additive. Several proxies are joined by "+".
        space: Whose networks will be asked for; a table's columns may be its decisions.
        images: To train on or to look at: the training part of a data set.
        workers: Who trains or judges; this process by default. The surrogate, a table and the
            additive one are asked here: they take microseconds.
        gpus: What each training holds of the workers' GPUs: a share of one, or whole ones; it sees
            none by default.
        hold_out: Share of the images by which trained networks are judged, in (0, 1); 0.1 by
            default.
        epochs: Of each short training, instead of its recipe's.
        loaders: Processes that decode the image files of each short training, ≥ 0.
        seed: Of all chance in it.
        unit: Of a table's top-1, "share" or "percent".
        cache: A file that keeps the answers. Without it `search` keeps those of slow estimators
            in its run folder.
        again: Ask anew for what failed, according to the cache.
    Raises:
        UnknownName: No such estimator, recipe or proxy; the message lists what there is.
        InvalidArgument: Images are missing or not taken, or a file is not named.
        MissingExtra: It needs torch.
        PhonenasError: As its own constructor.

    >>> estimator("surrogate").name
    'surrogate'
    """
    name, what = _split(words)
    kind = KINDS[name]
    if isinstance(workers, Serial):
        workers = None  # this process
    if kind.images == "must" and images is None:
        raise InvalidArgument(
            f"{kind.form} judges networks by images: name them with --data DIR (folders of images, "
            "an .npz file, or idx files)"
        )
    if kind.images == "no" and images is not None:
        raise InvalidArgument(f"{kind.form} looks at no images: leave --data out")
    if hold_out is not None and name != "training":
        raise InvalidArgument(f"{kind.form} holds no images out: leave --held-out out")
    if epochs is not None and name != "training":
        raise InvalidArgument(f"{kind.form} trains nothing for some epochs: leave --epochs out")
    if gpus is not None and name != "training":
        raise InvalidArgument(f"{kind.form} trains nothing on the workers' GPUs: leave --gpus out")
    if loaders and name != "training":
        raise InvalidArgument(f"{kind.form} needs no loaders: leave --loaders out")
    if unit is not None and name != "table":
        raise InvalidArgument(f"{kind.form} has no unit of its own: leave --unit out")
    if what and "[" not in kind.form and ":" not in kind.form:
        raise InvalidArgument(f"{name} takes nothing after a colon, got {what!r}")
    found = kind.make(
        _Asked(what, space, images, workers, gpus, hold_out, epochs, loaders, seed, unit)
    )
    if workers is not None and not found.slow:
        raise InvalidArgument(
            f"{kind.form} takes no time that workers could share: leave --workers and --ray out"
        )
    return found if cache is None else Cached(found, cache, again=again)
