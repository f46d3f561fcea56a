"""Every error that phonenas raises on purpose, and what each one means.

::

    PhonenasError
    ├── UnknownName            LookupError    no such space, zoo network, device, strategy, run candidate
    ├── InvalidArgument        ValueError     a value outside its range (a target of 0, a resolution of 7)
    │   └── InvalidArchitecture               a block string that is none; names the token
    ├── NotInSpace             ValueError     a network that the search space cannot express
    ├── UncoveredOperator      LookupError    the model has neither measured nor learned this operator
    ├── NotEnoughData          ValueError     too few measurements to fit or to score
    ├── Infeasible             ValueError     no network seen reaches the target
    ├── InvalidObjective       ValueError     an objective's function gave no number for a network
    ├── SettingsChanged        ValueError     a run or table is being resumed under other settings
    ├── UnsupportedFormat      ValueError     a file of a newer version, of another kind, or damaged
    │   └── InvalidImage                      a file that is no whole image; names it
    ├── MissingExtra           ImportError    an optional dependency is not installed
    ├── StoreError             OSError        the store cannot be read or written (full disk, locked)
    ├── DeviceError            RuntimeError   the device answered, and the answer is no measurement
    │   └── UnstableDevice                    readings contradict each other beyond the limit
    ├── DeviceUnavailable      ConnectionError  the device is not there, or was lost
    ├── ExportDiffers          ValueError     an exported model does not compute what was trained
    ├── TaskFailed             RuntimeError   a task on a worker raised what is no error of ours, or ended it
    ├── WorkersUnavailable     ConnectionError  nobody can do the work: no cluster, or no node fit for it
    └── UncoveredNetwork       LookupError    a table of trained networks lacks this one

Each message says what was asked, what stands against it and what to do next. `exit_code`
is what the command line returns for it: 2 where the request was amiss, 1 where it was
sound and could not be met.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DeviceError",
    "DeviceUnavailable",
    "ExportDiffers",
    "Infeasible",
    "InvalidArchitecture",
    "InvalidArgument",
    "InvalidImage",
    "InvalidObjective",
    "MissingExtra",
    "NotEnoughData",
    "NotInSpace",
    "PhonenasError",
    "SettingsChanged",
    "StoreError",
    "TaskFailed",
    "UncoveredNetwork",
    "UncoveredOperator",
    "UnknownName",
    "UnstableDevice",
    "UnsupportedFormat",
    "WorkersUnavailable",
    "nearest",
]


class PhonenasError(Exception):
    """The root; catch it to catch everything that phonenas raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # LookupError's KeyError-like repr and OSError's errno pair would garble the sentence.
        return str(self.args[0]) if self.args else ""


class UnknownName(PhonenasError, LookupError):
    """A name that nothing here bears; the message offers the nearest one."""

    exit_code = 2


class InvalidArgument(PhonenasError, ValueError):
    """A value outside its range; the message gives the range."""

    exit_code = 2


class InvalidArchitecture(InvalidArgument):
    """A block string that cannot be a network; the message names the token."""


class NotInSpace(PhonenasError, ValueError):
    """A network that the search space cannot express; the message says which part."""

    exit_code = 2


class UncoveredOperator(PhonenasError, LookupError):
    """An operator that a latency model neither measured nor can predict."""


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
    """An exported model does not compute what the trained network does; the message says by how much."""


class TaskFailed(PhonenasError, RuntimeError):
    """A task on a worker raised what is no error of phonenas, or took its worker down each time."""


class WorkersUnavailable(PhonenasError, ConnectionError):
    """Nobody can do the work: no cluster, none of its nodes has what is needed, or it went away."""


class UncoveredNetwork(PhonenasError, LookupError):
    """A network that a table of trained networks lacks; the first one is named, and how many."""


class InvalidImage(UnsupportedFormat):
    """A file that is no whole image; the message names it and says how to go on without it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that help after a wrong name: the closest known one, then the list.

    >>> nearest("mnasnet-a2", ["mnasnet-a1", "mobilenet-v2"])
    "Did you mean 'mnasnet-a1'? Known: mnasnet-a1, mobilenet-v2."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
