"""Every error that phonenas raises on purpose.

::

    PhonenasError
    ├── UnknownName            LookupError    no such space, network, device
    ├── InvalidArgument        ValueError     a value outside its range
    │   ├── InvalidArchitecture               a block string that is none; names the token
    │   └── InvalidUsage                      words of a command line that are no command
    ├── NotInSpace             ValueError     a network that the search space cannot express
    ├── UncoveredOperator      LookupError    the model cannot predict this operator
    ├── PrecisionDiffers       ValueError     a file computes in another precision than a model
    ├── NotEnoughData          ValueError     too few measurements to fit or to score
    ├── Infeasible             ValueError     no network seen reaches the target
    ├── InvalidObjective       ValueError     an objective's function gave no number for a network
    ├── SettingsChanged        ValueError     a run or table is being resumed under other settings
    ├── UnsupportedFormat      ValueError     a file of a newer version, of another kind, or damaged
    │   └── InvalidImage                      a file that is not a whole image; names it
    ├── MissingExtra           ImportError    an optional dependency is not installed
    ├── StoreError             OSError        the store cannot be read or written
    ├── DeviceError            RuntimeError   the device's answer is not a measurement
    │   └── UnstableDevice                    readings contradict each other beyond the limit
    ├── DeviceUnavailable      ConnectionError  the device is not there, or was lost
    ├── ExportDiffers          ValueError     an exported model does not compute what was trained
    ├── TaskFailed             RuntimeError   a task raised another error, or ended its worker
    ├── WorkersUnavailable     ConnectionError  no cluster, or no node that can run the task
    ├── UncoveredNetwork       LookupError    a table of trained networks lacks this one
    ├── Incomplete             RuntimeError   some of what was asked for by name gave no number
    └── Unexpected             RuntimeError   an error of another library that nobody foresaw

Each message says what was asked, what prevents it and what to do next. `exit_code` is what the
command line returns: 2 for invalid arguments, 1 for a valid request that could not be met. The
class's name is the error's code: the first word of its line on the command line, "code" in JSON.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "DeviceError",
    "DeviceUnavailable",
    "ExportDiffers",
    "Incomplete",
    "Infeasible",
    "InvalidArchitecture",
    "InvalidArgument",
    "InvalidImage",
    "InvalidObjective",
    "InvalidUsage",
    "MissingExtra",
    "NotEnoughData",
    "NotInSpace",
    "PhonenasError",
    "PrecisionDiffers",
    "SettingsChanged",
    "StoreError",
    "TaskFailed",
    "UncoveredNetwork",
    "UncoveredOperator",
    "Unexpected",
    "UnknownName",
    "UnstableDevice",
    "UnsupportedFormat",
    "WorkersUnavailable",
    "foreign",
    "install",
    "nearest",
    "reading",
]


_LISTED, _CLOSE = 20, 3  # names that are all told; of more only so many of the closest

# What each extra of pyproject.toml brings. The package is on no index, so its own name cannot be
# installed from one; these can, beside a checkout and beside a wheel.
_EXTRAS = {
    "cluster": "torch safetensors pillow ray",
    "litert": "ai-edge-litert",
    "postgres": "'psycopg[binary]'",
    "test": "pytest hypothesis",
    "torch": "torch safetensors pillow",
}


def install(extra: str) -> str:
    """The command that installs what an extra of this package needs.

    >>> install("torch")
    'pip install torch safetensors pillow'
    """
    return f"pip install {_EXTRAS[extra]}"


class PhonenasError(Exception):
    """The root; catch it to catch everything that phonenas raises on purpose."""

    exit_code = 1

    def to_dict(self) -> dict[str, str | int]:
        """Its code, its message and the exit code, ready for JSON."""
        name = type(self).__name__
        return {"code": name, "message": str(self), "exit_code": self.exit_code}

    def __str__(self) -> str:
        # LookupError's KeyError-like repr and OSError's errno pair would garble the sentence.
        return str(self.args[0]) if self.args else ""


class UnknownName(PhonenasError, LookupError):
    """No such name; the message offers the nearest one."""

    exit_code = 2


class InvalidArgument(PhonenasError, ValueError):
    """A value outside its range; the message gives the range."""

    exit_code = 2


class InvalidArchitecture(InvalidArgument):
    """A block string that cannot be a network; the message names the token."""


class InvalidUsage(InvalidArgument):
    """Words that are no command line: an unknown command or option, or a value that is missing."""


class NotInSpace(PhonenasError, ValueError):
    """A network that the search space cannot express; the message says which part."""

    exit_code = 2


class UncoveredOperator(PhonenasError, LookupError):
    """An operator that a latency model neither measured nor can predict."""


class PrecisionDiffers(PhonenasError, ValueError):
    """A file computes in another precision than what a model was measured in; both are named."""


class NotEnoughData(PhonenasError, ValueError):
    """Too few measurements for what was asked."""


class Infeasible(PhonenasError, ValueError):
    """No network seen reaches the target; the message gives the fastest."""


class InvalidObjective(PhonenasError, ValueError):
    """An objective gave no number, or not one a network; the message names the network."""


class SettingsChanged(PhonenasError, ValueError):
    """A run is resumed with settings other than its own; both values are in the message."""

    exit_code = 2


class UnsupportedFormat(PhonenasError, ValueError):
    """A file that this version cannot read: newer, of another kind, or damaged."""


class MissingExtra(PhonenasError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class StoreError(PhonenasError, OSError):
    """The measurement store or a run folder cannot be read or written."""


class DeviceError(PhonenasError, RuntimeError):
    """The device was reached, and what it gave is not a measurement."""


class UnstableDevice(DeviceError):
    """Readings of one subject contradict each other beyond the limit."""


class DeviceUnavailable(PhonenasError, ConnectionError):
    """The device is not there, cannot be started, or was lost in mid-work."""


class ExportDiffers(PhonenasError, ValueError):
    """An exported model differs from the trained network; the message says by how much."""


class TaskFailed(PhonenasError, RuntimeError):
    """A task on a worker raised another error, or ended its worker each time."""


class WorkersUnavailable(PhonenasError, ConnectionError):
    """No cluster, none of its nodes can run the task, or it was lost."""


class UncoveredNetwork(PhonenasError, LookupError):
    """A network that a table of trained networks lacks; the first one is named, and how many."""


class Incomplete(PhonenasError, RuntimeError):
    """Some of the subjects that were asked for by name gave no number; the message names them."""


class InvalidImage(UnsupportedFormat):
    """A file that is not a whole image; the message names it and says how to go on without it."""


class Unexpected(PhonenasError, RuntimeError):
    """An error that nobody foresaw; the message begins with the name that its library gives it."""


def foreign(error: Exception) -> PhonenasError:
    """The error that tells of one of Python or another library; one of phonenas as it is."""
    if isinstance(error, PhonenasError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return StoreError(f"{where}{error.strerror or error}. Nothing half-written is left.")
    text = " ".join(str(error).split())[:300] or "no further text"
    return Unexpected(f"{type(error).__name__}: {text}")


@contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """A context for taking apart what somebody else wrote: whatever a library raises is told.

    Args:
        what: What is read, for the message: "the file x.onnx".
        advice: What the user does about it: a sentence or a command.
    Raises:
        UnsupportedFormat: From the foreign error; errors of phonenas pass as they are.
    """
    try:
        yield
    except PhonenasError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise UnsupportedFormat(
            f"{what} cannot be taken apart: {type(error).__name__} {words}. {advice}"
        ) from error


def nearest(name: str, known: Iterable[str], listed: str = "") -> str:
    """Words that help after a wrong name: the closest known ones, then the list if it is short.

    Args:
        name: That was given.
        known: All names there are.
        listed: The command or the page that has the whole list, told where that is long.

    >>> nearest("mnasnet-a2", ["mnasnet-a1", "mobilenet-v2"])
    "Did you mean 'mnasnet-a1'? Known: mnasnet-a1, mobilenet-v2."
    >>> nearest("layer17", [f"layer{i}" for i in range(9, 99, 3)], "docs/layers.md")
    "Did you mean 'layer87', 'layer81' or 'layer78'? All 30 names:  docs/layers.md"
    """
    names = sorted(known)
    short = len(names) <= _LISTED
    close = difflib.get_close_matches(name, names, n=1 if short else _CLOSE, cutoff=0.6)
    *others, last = map(repr, close or [""])
    offered = f"{', '.join(others)} or {last}" if others else last
    hint = f"Did you mean {offered}? " if close else ""
    if short:
        return f"{hint}Known: {', '.join(names)}."
    if listed:
        return f"{hint}All {len(names)} names:  {listed}"
    return f"{hint}{len(names)} names are known."
