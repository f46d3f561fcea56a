"""validate_rounds(): measure, learn from it, rank anew, measure again.

A search finds what its model errs about in its favour (the winner's curse), and where its winners
lie hardly any network had taught the model. A round measures some of them. Then the model is
fitted on all that the store holds, these among it, and shifted by what it still errs on them
(`taught`); every network that the run evaluated is judged anew, those measured by their
measurement (`recorded`); and the next round chooses from the front of that.

Ranked anew, not searched anew: on a simulated phone (two spaces, three targets each, 8,000
evaluations) the front of a second search with the fitted model had a true hypervolume within 0.2 %
of the first search's, to either side, and its networks were no less wrong. A model that was far too
slow may have kept the search from what now meets the target; whoever fears that gives `phonenas
search` the round's `model.json`.

    DIR/validation.json   the run's own candidates, measured; `rounds` and `best` over all rounds
    DIR/round2/           a run of its own: the front ranked anew, and its validation.json
    DIR/round2/model.json the latency model that promised in this round
    DIR/round2/taught.json what was measured before it was fitted

All follows from the store and the run; a model, once fitted, stays while what was measured before
it stays. So a command that was stopped goes on when it is given again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data import Conditions, MeasurementStore
from ..data.files import write_atomic
from ..devices import Device
from ..devices.plan import Event
from ..latency_model import LatencyModel, Score, score
from ..space import SearchSpace
from ..space.errors import Infeasible, InvalidArgument
from .choosing import chances
from .limits import Limit
from .objectives import Objective
from .pareto import ParetoFront
from .recorded import Recorded
from .reward import reward
from .run_folder import Loaded
from .run_folder import load as load_run
from .taught import Measured, taught
from .validation import Validated, Validation, document, earlier, validate

__all__ = ["Best", "Ranked", "Round", "RoundBegan", "Rounds", "validate_rounds"]


@dataclass(frozen=True)
class RoundBegan:
    """Event: a round is about to measure some of `front` networks."""

    number: int
    rounds: int
    front: int

    def __str__(self) -> str:
        return f"round {self.number} of {self.rounds}, out of {self.front} networks on the front"


@dataclass(frozen=True)
class Ranked:
    """Event: the model was fitted on what was measured, and the front ranked anew.

    `shift` is n / (n + 1) of what n measured winners took beyond the fitted model, relative; the others count
    networks of both fronts, of the new one alone, and of the one before alone.
    """

    number: int
    shift: float
    stayed: int
    joined: int
    left: int

    def __str__(self) -> str:
        return (
            f"ranked anew for round {self.number}: {self.joined} networks came to the front, "
            f"{self.left} left it, {self.stayed} stayed (model shifted by {self.shift:+.1%})"
        )


@dataclass(frozen=True)
class Round:
    """One round: a front, what it promised, and what the device said.

    Args:
        number: From 1.
        folder: The run whose front it is; `phonenas report` and `FOLDER:ID` take it.
        front: What was chosen from.
        validation: Promises beside measurements.
        expected: Of those measured, how many were expected to meet the target: the sum of
            their chances; None without a target.
        ranked: How this front came of the last; None for the search's own.
    """

    number: int
    folder: Path
    front: ParetoFront
    validation: Validation
    expected: float | None
    ranked: Ranked | None

    @property
    def meet(self) -> int:
        """How many of those measured do not miss the target."""
        return sum(v.meets_target is not False for v in self.validation.networks)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        changed = None if self.ranked is None else asdict(self.ranked)
        return {
            "round": self.number,
            "folder": str(self.folder),
            "networks": [v.to_dict() for v in self.validation.networks],
            "score": self.validation.score.to_dict(),
            "expected_to_meet": self.expected,
            "meet": None if self.front.target_ms is None else self.meet,
            "front": len(self.front),
            "changed": changed,
            "reused": self.validation.reused,
        }


@dataclass(frozen=True)
class Best:
    """One of the final choice: measured, with the round that promised it.

    `reward` is of what was measured; without a target it is top-1.
    """

    round: int
    name: str
    validated: Validated
    reward: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **self.validated.to_dict(), "round": self.round, "name": self.name,
            "reward": self.reward,
        }  # fmt: skip


@dataclass(frozen=True)
class Rounds:
    """What came of all rounds.

    Args:
        rounds: Each that was measured; fewer than asked for where `stopped` says why.
        best: The best K of all that was measured: first those that meet the target, by reward
            (without a target, top-1).
        stopped: Why there was no further round; "" if there was.
    """

    rounds: tuple[Round, ...]
    best: tuple[Best, ...]
    stopped: str

    @property
    def score(self) -> Score:
        """Of all promises of all rounds against what was measured."""
        all_of = [v for r in self.rounds for v in r.validation.networks]
        columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
        return score(*([getattr(v, name) for v in all_of] for name in columns))


def validate_rounds(
    run: Loaded,
    *,
    latency: LatencyModel,
    on: Device,
    into: MeasurementStore,
    top: int = 5,
    rounds: int = 2,
    space: SearchSpace | None = None,
    also: Sequence[Objective] = (),
    limits: Sequence[Limit] = (),
    again: bool = False,
    on_event: Callable[[Event | RoundBegan | Ranked], None] | None = None,
) -> Rounds:
    """Measure the best of a run, in rounds that learn from each other, and write it into the run.

    Args:
        run: Finished.
        latency: The model at hand. If it is the one that promised, the report shows where each
            network's predicted milliseconds go.
        on: An entered device, as it was when the promises were made.
        into: The store; what it holds is not measured again.
        top: How many to measure a round, and to name in the end, ≥ 1.
        rounds: At most, ≥ 1; one does not fit anything.
        space: Of the run; by its name by default.
        also, limits: As the search was given them; their numbers are taken from the run.
        again: Measure anew what the store already holds.
        on_event: As for `devices.profile`, and `RoundBegan`, `Ranked`.
    Raises:
        InvalidArgument: top or rounds < 1; another device, space, objectives or limits than
            the run's.
        SettingsChanged: The device runs under other conditions than when the model was fitted.
        UnsupportedFormat: What the run evaluated is not of its space, or damaged.
        NotEnoughData: The store lacks what the model was fitted on.
        UnstableDevice: A network's rounds would not agree.
    """
    if rounds < 1 or top < 1:
        raise InvalidArgument(f"rounds and top: 1 or more, got {rounds} and {top}")
    if run.settings["device"] != on.name:
        raise InvalidArgument(
            f"{run.path} was searched for {run.settings['device']}, not for {on.name}"
        )
    expected = Conditions.from_dict(run.model["conditions"])
    known = Recorded(run, space, also, limits) if rounds > 1 else None
    tell_of = on_event or _ignore
    found: list[Round] = []
    measured: dict[str, float] = {}
    here, promised, ranked, stopped = run, latency, None, ""
    for number in range(1, rounds + 1):
        if number > 1:
            assert known is not None
            folder = run.path / f"round{number}"
            fitted, shift = taught(folder, into, expected, run.settings["latency_model"], measured)
            promised = Measured.of(fitted, measured)
            try:
                front = known.ranked(promised, folder)
            except Infeasible as error:
                stopped = f"no further network is expected to meet the target: {error}"
                break
            ranked = _changed(number, found[-1].front, front, shift)
            tell_of(ranked)
            here = load_run(folder)
            if all(c.block_args in measured for c in front):
                stopped = "every network of the front was measured"
                break
        tell_of(RoundBegan(number, rounds, len(here.front)))
        before = earlier(here.path / "validation.json", here, on.conditions)
        validation = validate(
            here.front, on=on, into=into, top=top, known=measured, expected=expected,
            again=again, on_event=on_event,
        )  # fmt: skip
        ids = {v.candidate.id for v in validation.networks}
        chance = dict(zip((c.id for c in here.front), chances(here.front), strict=True))
        expect = None if run.front.target_ms is None else float(sum(chance[i] for i in ids))
        found.append(Round(number, here.path, here.front, validation, expect, ranked))
        measured |= {v.candidate.block_args: v.measured_ms for v in validation.networks}
        text = document(validation, here, promised, on.conditions, before)
        _write(here.path / "validation.json", text)
        here.with_measured(
            {c.id: measured[c.block_args] for c in here.front if c.block_args in measured}
        )
    result = Rounds(tuple(found), tuple(_best(found, run.front.target_ms, top)), stopped)
    if rounds > 1:
        path = run.path / "validation.json"
        text = json.loads(path.read_text(encoding="utf-8"))
        text |= {
            "rounds": [r.to_dict() for r in result.rounds],
            "best": [b.to_dict() for b in result.best],
            "stopped": stopped,
        }
        _write(path, text)
    return result


def _best(rounds: Sequence[Round], target_ms: float | None, top: int) -> Iterator[Best]:
    all_of = []
    for r in rounds:
        for v in r.validation.networks:
            value = v.candidate.top1
            if target_ms is not None:
                value = float(reward([value], [v.measured_ms], target_ms)[0])
            all_of.append(Best(r.number, f"{r.folder}:{v.candidate.id}", v, value))
    all_of.sort(key=lambda b: (b.validated.meets_target is False, -b.reward))
    yield from all_of[:top]


def _changed(number: int, old: ParetoFront, new: ParetoFront, shift: float) -> Ranked:
    before, after = ({c.block_args for c in front} for front in (old, new))
    return Ranked(number, shift, len(before & after), len(after - before), len(before - after))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1) + "\n")


def _ignore(event: object) -> None:
    pass
