"""estimator(): an accuracy estimator by its name on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from phonenas.space.errors import InvalidArgument
from phonenas.space.registry import Registry

from ..cluster.workers import Serial
from .cache import Cached
from .estimator import AccuracyEstimator, Request

__all__ = ["DEFAULT", "ESTIMATORS", "estimator", "takes_images"]

DEFAULT = "imagenet"
_ROOM = "phonenas.search.accuracy"
ESTIMATORS: Registry[Any] = Registry(
    "accuracy estimator",
    "phonenas.estimators",
    {
        "additive": f"{_ROOM}.surrogate.additive:Additive",
        "imagenet": f"{_ROOM}.imagenet.imagenet:ImageNet",
        "supernet": f"{_ROOM}.supernet.supernet:Supernet",
        "surrogate": f"{_ROOM}.surrogate.surrogate:Surrogate",
        "table": f"{_ROOM}.table:AccuracyTable",
        "training": f"{_ROOM}.short_training:ShortTraining",
        "zero_cost": f"{_ROOM}.zero_cost.zero_cost:ZeroCost",
    },
)


def takes_images(words: str) -> bool:
    """Whether an estimator uses images.

    Raises:
        UnknownName: There is none of that name; all are listed.
    """
    return "images" in _split(words)[0].takes


def estimator(
    words: str = DEFAULT,
    request: Request | None = None,
    *,
    cache: str | Path | None = None,
    again: bool = False,
) -> AccuracyEstimator:
    """An estimator by its name.

    Args:
        words: imagenet[:RECIPE], surrogate[:FILE], zero_cost[:PROXY], training[:RECIPE],
            supernet:FOLDER, table:FILE, additive, the name that an installed package registers, or
            MODULE:NAME[:ARGUMENT]. Several proxies are joined by "+".
        request: What it is made from; its `argument` is taken from the words.
        cache: A file that keeps the answers. Without it `search` keeps those of slow estimators
            in its run folder.
        again: Estimate once more what failed, according to the cache.
    Raises:
        UnknownName: No such estimator, recipe or proxy; the message lists what there is.
        InvalidArgument: Images or a file are missing, or something is given that it does not use.
        MissingExtra: It needs torch.
        PhonenasError: As its own constructor.

    >>> estimator().name
    'imagenet'
    """
    kind, argument = _split(words)
    request = replace(request or Request(), argument=argument)
    if isinstance(request.workers, Serial):
        request = replace(request, workers=None)  # this process
    form = kind.form or words.partition(":")[0]
    if kind.needs_images and request.images is None:
        raise InvalidArgument(
            f"{form} needs images: name them with --data DIR (folders of images, an .npz file, or "
            "idx files)"
        )
    given = {
        "images": ("--data", request.images is not None),
        "trained": ("--trained", request.trained is not None),
        "workers": ("--workers and --ray", request.workers is not None),
        "hold_out": ("--held-out", request.hold_out is not None),
        "epochs": ("--epochs", request.epochs is not None),
        "gpus": ("--gpus", request.resources.gpus > 0),
        "loaders": ("--loaders", request.resources.loaders > 0),
        "unit": ("--unit", request.unit is not None),
        "inherit": ("--inherit", request.inherit),
    }
    for name, (option, is_given) in given.items():
        if is_given and name not in kind.takes:
            raise InvalidArgument(f"{form} does not use {option}: leave {option} out")
    if argument and ":" not in form:
        raise InvalidArgument(f"{form} takes nothing after a colon, got {argument!r}")
    if not argument and ":" in form and "[" not in form:
        raise InvalidArgument(f"{form}: what to read is missing after the colon")
    made = kind.make(request)
    return made if cache is None else Cached(made, cache, again=again)


def _split(words: str) -> tuple[type[AccuracyEstimator], str]:
    """The class of an estimator, and its argument."""
    name, colon, argument = words.strip().partition(":")
    if colon and name not in ESTIMATORS.names():  # MODULE:NAME[:ARGUMENT]
        attribute, _, argument = argument.partition(":")
        name = f"{name}:{attribute}"
    kind = ESTIMATORS.get(name)
    if not (isinstance(kind, type) and issubclass(kind, AccuracyEstimator)):
        raise InvalidArgument(
            f"the accuracy estimator {name!r} is {kind!r}, which is not an AccuracyEstimator class"
        )
    return kind, argument
