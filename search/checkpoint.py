"""Where a run stopped, on disk: `checkpoint.npz`; and the digest that all files of a run carry."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from phonenas.data.arrays import arrays_digest, read_arrays
from phonenas.data.documents import Count, Number, Text, digest_of, parsed, strict
from phonenas.data.files import write_atomic
from phonenas.space.errors import StoreError, UnsupportedFormat

from .evaluations import CHANCE, COLUMNS, Evaluations, Generation

__all__ = [
    "BUDGET",
    "CHECKPOINT",
    "DERIVED",
    "RULES",
    "Checkpoint",
    "of_this_run",
    "read_checkpoint",
    "run_digest",
    "run_digests",
    "write_checkpoint",
]

CHECKPOINT = "checkpoint.npz"
# Settings that follow from others.
DERIVED = {"target", "columns", "estimator", "scale", "quantity", "schedule", "asked"}
DERIVED |= {"precision"}  # of the latency model
BUDGET = "evaluations"  # the setting that may grow, so that a run goes on
RULES = ("patience", "time_s", "training_s")  # by which a run ends before; they may change, too
_SLOWEST_MS = 1e9


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands: the strategy's state, and all evaluations so far.

    `repeats` counts proposals that were known already, `stale` asks in a row that brought nothing
    new; `seconds` leave stops out; `log` has a row a generation. In a run that evaluated all that
    it was given the state is `before_last`: that before the last generation, which the budget may
    have cut short; `stale` is of then, too. A rule ends a run after a whole generation.
    """

    state: dict[str, Any]
    evaluations: Evaluations
    repeats: int = 0
    seconds: float = 0.0
    log: tuple[Generation, ...] = ()
    stale: int = 0
    before_last: bool = False

    def to_go_on(self) -> Checkpoint:
        """Where the strategy stood; the last generation, if it was cut short, is asked for again.

        What was evaluated of it is not in the result.
        """
        if not self.before_last:
            return self
        log = self.log[:-1]
        known, repeats = (log[-1].evaluations, log[-1].repeats) if log else (0, 0)
        evaluated = self.evaluations.take(range(int(known)))
        return replace(
            self, evaluations=evaluated, repeats=int(repeats), log=log, before_last=False
        )


def run_digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of a run's settings; each file of the run carries them.

    The budget and the rules by which it ends are not among them: with others it is the same run.
    """
    return run_digests(settings)[0]


def run_digests(settings: Mapping[str, Any]) -> tuple[str, str]:
    """`run_digest`, and that of files written when the budget was among the settings."""
    own = {name: value for name, value in settings.items() if name not in {*DERIVED, *RULES}}
    lasting = {name: value for name, value in own.items() if name != BUDGET}
    digests = [
        hashlib.sha256(json.dumps(some, sort_keys=True).encode()).hexdigest()[:12]
        for some in (lasting, own)
    ]
    return digests[0], digests[1]


def of_this_run(path: Path, digest: object, settings: Mapping[str, Any], remedy: str) -> None:
    """Refuse a file that another run wrote.

    Args:
        path: The file.
        digest: What it carries, of any type; None in files of phonenas 0.1, which carry none.
        settings: Of the run that lies in the folder.
        remedy: A sentence, or a command.
    Raises:
        UnsupportedFormat: The digests differ; both are named.
    """
    own = run_digests(settings)
    if digest not in (None, *own):
        raise UnsupportedFormat(
            f"{path} is of another run (settings {str(digest)[:40]}) than the run.json of its "
            f"folder (settings {own[0]}). {remedy}"
        )


def write_checkpoint(folder: Path, settings: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Write `checkpoint.npz` and `log.csv`, each whole or not at all.

    Raises:
        StoreError: The disk does not take them; the older ones stay whole.
    """
    state, evaluated = checkpoint.state, checkpoint.evaluations
    plain = {
        "run": run_digest(settings),
        "state": {k: v for k, v in state.items() if not isinstance(v, np.ndarray)},
        "repeats": checkpoint.repeats,
        "seconds": checkpoint.seconds,
        "stale": checkpoint.stale,
        **({"before_last": True} if checkpoint.before_last else {}),
        **({"failed": evaluated.failed} if evaluated.failed else {}),
    }
    rows = np.array(checkpoint.log, np.float64).reshape(-1, len(Generation._fields))
    arrays = {f"state_{k}": v for k, v in state.items() if isinstance(v, np.ndarray)}
    arrays |= {"genomes": evaluated.genomes, "numbers": evaluated.to_array(), "log": rows}
    plain["arrays"] = arrays_digest(arrays)
    plain["digest"] = digest_of(json.loads(json.dumps(plain)))
    buffer = io.BytesIO()
    np.savez(buffer, plain=np.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type]
    write_atomic(folder / CHECKPOINT, buffer.getvalue())
    lines = [
        ",".join(Generation._fields),
        *(",".join(f"{v:.6g}" if v % 1 else f"{v:.0f}" for v in row) for row in rows),
    ]
    write_atomic(folder / "log.csv", "\n".join(lines) + "\n")


def read_checkpoint(
    folder: Path, settings: Mapping[str, Any], *, digested: bool = True
) -> Checkpoint | None:
    """Where a run stopped; None without a checkpoint.

    Args:
        folder, settings: Of the run.
        digested: Whether it must hold a digest; those of runs of phonenas 0.1 have none.
    Raises:
        UnsupportedFormat: It is damaged, or of another run than the settings.
        StoreError: It cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    columns, remedy = settings.get("columns", COLUMNS), "Remove it to start this run again."
    try:
        arrays = read_arrays(path)
        document = parsed(str(arrays.pop("plain")))
        plain = strict(document, _Plain)
        told = document.get("digest")
        if (digested or told is not None) and (
            told != digest_of(document) or plain.arrays != arrays_digest(arrays)
        ):
            raise ValueError("it was changed since phonenas wrote it: its digest is another")
        checkpoint = _of(arrays, plain, columns)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise UnsupportedFormat(f"{path} is damaged ({str(error)[:200]}). {remedy}") from error
    of_this_run(path, plain.run, settings, "Search again, with another --out.")
    return checkpoint


class _Plain(msgspec.Struct):
    """What a checkpoint holds beside its arrays."""

    state: dict[str, Any]
    repeats: Count
    seconds: Number
    stale: Count = 0
    before_last: bool = False
    failed: dict[str, Text] = {}
    arrays: str = ""
    run: str | None = None


def _of(arrays: dict[str, npt.NDArray[Any]], plain: _Plain, columns: Sequence[str]) -> Checkpoint:
    """The checkpoint that a file's arrays hold.

    Raises:
        ValueError, KeyError: It is damaged.
    """
    state = plain.state | {k[6:]: v for k, v in arrays.items() if k.startswith("state_")}
    genomes, numbers = arrays["genomes"], arrays["numbers"]
    rows = arrays.get("log", np.empty((0, len(Generation._fields))))
    if genomes.dtype != np.int8 or genomes.ndim != 2:
        raise ValueError(f"genomes {genomes.shape} of {genomes.dtype}")
    for name, array in (("numbers", numbers), ("log", rows)):
        if array.dtype != np.float64 or array.ndim != 2:
            raise ValueError(f"{name} {array.shape} of {array.dtype}")
    if rows.shape[1] != len(Generation._fields) or np.isinf(rows).any():
        raise ValueError(f"a log of {rows.shape[1]} columns, or infinite")
    failed = {int(row): why for row, why in plain.failed.items()}
    evaluated = Evaluations.of_array(genomes, numbers, columns, failed)
    _check_numbers(evaluated)
    log = tuple(Generation(*row) for row in rows.tolist())
    counted = np.concatenate([rows[-2:, 0], [len(evaluated)]])
    if plain.before_last and not (
        log and rows[-1, 0] == len(evaluated) and (np.diff(counted) >= 0).all() and counted[0] >= 0
    ):
        raise ValueError("its log does not end with its last generation")
    counts = (plain.repeats, plain.seconds, log, plain.stale, plain.before_last)
    return Checkpoint(state, evaluated, *counts)


def _check_numbers(evaluated: Evaluations) -> None:
    """Refuse numbers that no search gives."""
    known = evaluated.has_top1
    shares = {"top1": evaluated.top1[known], CHANCE: evaluated.further.get(CHANCE, np.zeros(0))}
    wrong = [n for n, v in shares.items() if not ((v >= 0) & (v <= 1)).all()]
    numbers = {"top1_error": evaluated.top1_error[known], **evaluated.further}
    wrong += [n for n, v in numbers.items() if not np.isfinite(v).all()]
    if not ((evaluated.latency_ms > 0) & (evaluated.latency_ms <= _SLOWEST_MS)).all():
        wrong.append("latency_ms")
    if wrong:
        raise ValueError(f"{min(wrong)} holds a number out of range")
