"""NETWORK, as a user writes it: a zoo name, a block string, a run's candidate, a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..space import Architecture, zoo
from ..space.errors import InvalidArgument, UnknownName, UnsupportedFormat
from ..space.ssdlite import SSDLite
from .run_folder import load

__all__ = ["detector", "find"]

_CANDIDATE = re.compile(r"(?P<run>.+):(?P<id>\d{1,6})")
_NETWORK_KEYS = ("block_args", "network")
_TRANSFER = "ssdlite:"
_MAX_BYTES = 1 << 20


def find(text: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """The network that a user named.

    Args:
        text: A zoo name (`mnasnet-a1`), a block string, a run's candidate (`runs/x:3`), or a
            .json file with `block_args` (as `phonenas show --json` writes it).
        width: Width multiplier in (0, 10].
        resolution: Side of the input in pixels, instead of the network's own.
    Raises:
        UnknownName: No such name, run, candidate or file.
        InvalidArchitecture, InvalidArgument: As `Architecture.parse`; or the words name a detector.
        UnsupportedFormat: A file that holds no network, or an ONNX file, which is no value of
            `space`: `latency_model.onnx_kernels` takes it apart.
    """
    text = text.strip()
    if text.endswith(".onnx"):
        raise UnsupportedFormat(
            f"{text}: foreign ONNX graphs go to phonenas predict and profile alone. Give a block string, a zoo "
            f"name ({', '.join(zoo.names())}), a run's candidate or a .json file."
        )
    candidate = None if text.startswith(_TRANSFER) else _CANDIDATE.fullmatch(text)
    if candidate:  # a block string holds no colon
        run = load(candidate["run"])
        number = int(candidate["id"])
        if number >= len(run.front):
            raise UnknownName(
                f"{candidate['run']} has {len(run.front)} candidates, 0 to {len(run.front) - 1}; "
                f"there is no {number}"
            )
        return _adapted(run.front.candidates[number].architecture, width, resolution)
    read = _text_of(Path(text)) if text.endswith(".json") else None
    if text.startswith(_TRANSFER) or _is_detector(text if read is None else read):
        raise InvalidArgument(
            f"{text[:40]} is a detector: phonenas show, profile and predict take it; here stands a "
            "network that classifies"
        )
    if read is not None:
        return _adapted(Architecture.parse(read), width, resolution)
    return zoo.find(text, width, resolution)


def detector(text: str, width: float = 1.0, resolution: int | None = None) -> SSDLite | None:
    """The detector that a user named; None where the words name no detector.

    Args:
        text: `ssdlite:` and a network as `find` takes it, which becomes the backbone at 320 px; a
            detector's text (`ssdlite classes91 res320 r1_k3_...`); or a .json file with such a text
            as its `block_args`.
        width: Width multiplier in [0.01, 10], of backbone and head.
        resolution: Side of the input in pixels, instead of the detector's own.
    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument, UnsupportedFormat: As `find` and
            `SSDLite`.
    """
    text = text.strip()
    if text.startswith(_TRANSFER):
        backbone = text.removeprefix(_TRANSFER)
        if detector(backbone) is not None:
            raise InvalidArgument(f"{text}: {backbone[:40]} is a detector already")
        found = SSDLite(find(backbone))
    elif text.endswith(".json") and _is_detector(own := _text_of(Path(text))):
        found = SSDLite.parse(own)
    elif _is_detector(text):
        found = SSDLite.parse(text)
    else:
        return None
    found = found.scaled(width)
    return found if resolution is None else found.with_resolution(resolution)


def _is_detector(text: str) -> bool:
    return re.match(r"ssdlite(?:[\s,·;]|$)", text) is not None


def _adapted(network: Architecture, width: float, resolution: int | None) -> Architecture:
    network = network.scaled(width)
    return network if resolution is None else network.with_resolution(resolution)


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnsupportedFormat(f"{path} is over a megabyte: no description of one network")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnsupportedFormat(f"{path} is no JSON: {error}") from error
    for key in _NETWORK_KEYS:
        text = found.get(key) if isinstance(found, dict) else None
        if isinstance(text, str):
            return text.strip()
    raise UnsupportedFormat(f'{path} names no network: it needs a "block_args"')
