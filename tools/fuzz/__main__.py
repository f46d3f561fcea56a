"""python -m tools.fuzz KIND: mutated files of one kind, read by what reads them in the commands.

    python -m tools.fuzz runs --count 10000 --seed 0

Each input is a small real file, changed; it is answered, or refused by an error of phonenas. What
counts as a failure: another exception, a crash, an answer that takes over 10 s, and a run or
checkpoint that is accepted and is another than the one that was written. The table has a count for
each; exit code 1 where anything failed. `--from N --count 1` repeats one input.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

from phonenas.space.errors import PhonenasError

from .kinds import KINDS, Kind, Other

_LIMIT_S = 10.0
_MEMORY = 4 << 30
_PIECE = 250  # inputs that one process takes: what it leaves behind ends with it
OUTCOMES = ("answered", "refused", "foreign exception", "another front", "too slow", "crash")


class _TooSlow(BaseException):
    pass


def _late(number: int, frame: FrameType | None) -> None:
    raise _TooSlow


def tried(
    kind: Kind, seed: int, number: int, folder: Path, limit_s: float = 0.0
) -> tuple[str, str]:
    """The outcome of one input, and a line of detail; no time limit at 0 s."""
    rng = random.Random(f"{kind.name} {seed} {number}")
    if limit_s:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        kind.attempt(rng, folder)
    except PhonenasError as error:
        text = str(error)
        if not text.strip() or len(text) > 3_000:
            return "foreign exception", f"a message of {len(text)} characters: {text[:80]!r}"
        return "refused", f"{type(error).__name__}: {text}"
    except Other as error:
        return "another front", str(error)
    except _TooSlow:
        return "too slow", "".join(traceback.format_exc().splitlines(True)[-3:])
    except Exception as error:  # noqa: BLE001  # this is what is counted
        last = traceback.extract_tb(error.__traceback__)
        own = [f for f in last if "/tools/fuzz/" not in f.filename] or last
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in own[::-1][:4])
        return "foreign exception", f"{type(error).__name__}: {str(error)[:150]} @ {places}"
    finally:
        if limit_s:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return "answered", ""


def _piece(kind: Kind, seed: int, numbers: range, folder: Path, send: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, _late)
    with os.fdopen(send, "w") as out:
        for number in numbers:
            print(json.dumps([number]), file=out, flush=True)
            print(
                json.dumps([number, *tried(kind, seed, number, folder, _LIMIT_S)]),
                file=out,
                flush=True,
            )


def run(kind: Kind, seed: int, numbers: range) -> list[tuple[int, str, str]]:
    """Each input's number, outcome and detail; a crash ends one process, not the count."""
    done: list[tuple[int, str, str]] = []
    at = numbers.start
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        while at < numbers.stop:
            piece = range(at, min(at + _PIECE, numbers.stop))
            receive, send = os.pipe()
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                os.close(receive)
                code = 1
                try:
                    _piece(kind, seed, piece, Path(place), send)
                    code = 0
                finally:
                    os._exit(code)
            os.close(send)
            begun = None
            with os.fdopen(receive) as lines:
                for line in lines:
                    number, *outcome = json.loads(line)
                    begun = number
                    if outcome:
                        done.append((number, *outcome))
                        begun = None
            _, status = os.waitpid(child, 0)
            at = piece.stop
            if status:
                at = piece.start if begun is None else begun
                signalled = os.waitstatus_to_exitcode(status)
                done.append((at, "crash", f"the process ended with {signalled}"))
                at += 1
    return done


def table(name: str, done: list[tuple[int, str, str]], seconds: float) -> str:
    """Counts by outcome."""
    counts = Counter(outcome for _, outcome, _ in done)
    cells = "  ".join(f"{outcome} {counts[outcome]:,}" for outcome in OUTCOMES)
    return f"{name:<12} {len(done):>7,} inputs  {cells}  ({len(done) / max(seconds, 1e-9):.0f}/s)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("kind", nargs="*", default=[*KINDS], help=", ".join(KINDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--show", type=int, default=10, help="Failures shown, of each kind.")
    parser.add_argument("--all", action="store_true", help="Show each input's outcome.")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    failed = False
    for name in given.kind:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            kind = KINDS[name](Path(place))
            began = time.monotonic()
            done = run(kind, given.seed, range(given.start, given.start + given.count))
        print(table(name, done, time.monotonic() - began), flush=True)
        bad = [d for d in done if d[1] not in ("answered", "refused")]
        failed = failed or bool(bad)
        alike: dict[str, list[int]] = {}
        for number, outcome, detail in done if given.all else bad:
            alike.setdefault(f"{outcome}: {detail}", []).append(number)
        for text, numbers in sorted(alike.items(), key=lambda a: -len(a[1]))[: given.show]:
            print(f"   {len(numbers):>4} × {text}   (as input {numbers[0]})", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
