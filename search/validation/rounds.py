"""validate_rounds(): measure, fit again, rank again, measure again.

A search finds networks whose latency its model predicts too low (the winner's curse), and near its
winners the model was fitted on hardly any network. A round measures some of them. Then the model is
fitted on all that the store holds, these among it, and shifted by the error that is left on them
(`round_model`); all networks that the run evaluated are ranked by it, those measured by their
measurement (`rerank`); and the next round chooses from the front of that.

The networks are ranked again, not searched again: on a simulated phone (two spaces, three targets
each, 8,000 evaluations) the front of a second search with the fitted model had a true hypervolume
within 0.2 % of the first search's, to either side, and its networks were predicted no better. A
model that was far too slow may have kept the search from networks that now meet the target; then
give `phonenas search --model` the round's `model.json`.

    DIR/validation.json    the run's own candidates, measured; `rounds` and `best` over all rounds
    DIR/round2/            a run of its own: the front of that round, and its validation.json
    DIR/round2/model.json  the latency model that predicted in this round
    DIR/round2/taught.json what was measured before it was fitted

All follows from the store and the run; a model, once fitted, stays while what was measured before
it stays. So a command that was stopped goes on when it is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data import MeasurementStore
from phonenas.devices import Device
from phonenas.devices.measuring.events import Event
from phonenas.latency_model import LatencyModel, Score
from phonenas.space.errors import Infeasible, InvalidArgument, UnstableDevice

from ..candidate_selection import chances
from ..checkpoint import run_digest
from ..device_view import of_device, written
from ..evaluations import Evaluations
from ..pareto import ParetoFront
from ..promotion.result import read_promoted
from ..run_folder import Loaded, lock_run
from .rerank import evaluated_of, rerank
from .round_model import round_model
from .validate import Unmeasured, Validated, Validation, score_of, validate
from .validation_file import DOCUMENT, document, earlier

if TYPE_CHECKING:
    import pandas as pd

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
    """Event: the model was fitted on what was measured, and the networks ranked by it.

    `shift` is n / (n + 1) of what n measured winners took beyond the fitted model, relative;
    `stayed`, `joined`, `left` count networks of both fronts, of the new and of the old one alone.
    """

    number: int
    shift: float
    stayed: int
    joined: int
    left: int

    def __str__(self) -> str:
        return (
            f"ranked again for round {self.number}: {self.joined} networks came to the front, "
            f"{self.left} left it, {self.stayed} stayed (model shifted by {self.shift:+z.1%})"
        )


@dataclass(frozen=True)
class Round:
    """One round, numbered from 1: a front, its predictions, and the measurements.

    Args:
        folder: The run whose front it is; `phonenas report` and `FOLDER:ID` take it.
        expected: How many of the measured networks were expected to meet the target: the sum of
            their chances; None without a target.
        ranked: How this front differs from the last; None for the search's own.
    """

    number: int
    folder: Path
    front: ParetoFront
    validation: Validation
    expected: float | None
    ranked: Ranked | None

    @property
    def meet(self) -> int:
        """How many of those measured do not miss the target, by their values alone."""
        return sum(v.meets_target is not False for v in self.validation.networks)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "round": self.number,
            "folder": str(self.folder),
            "networks": [v.to_dict() for v in self.validation.networks],
            "unmeasured": [u.to_dict() for u in self.validation.unmeasured],
            "score": self.validation.score.to_dict(),
            "expected_to_meet": self.expected,
            "meet": None if self.front.target_ms is None else self.meet,
            "front": len(self.front),
            "changed": None if self.ranked is None else asdict(self.ranked),
            "reused": self.validation.reused,
        }


@dataclass(frozen=True)
class Best:
    """One of the final choice, with the round that predicted it.

    `reward` is that of the run with the measured latency: of several devices with the measured one
    of this device and the predicted ones of the others. Without a target it is top-1.
    """

    round: int
    name: str
    validated: Validated
    reward: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        own = {"round": self.round, "name": self.name, "reward": self.reward}
        return {**self.validated.to_dict(), **own}


@dataclass(frozen=True)
class Rounds:
    """All rounds, and the best of them.

        `best` are of all that was measured: first those that meet the target or are likely to, by
    reward (without a target, top-1), then those of which that is unclear. `stopped` says why there
    are fewer rounds than asked for, else it is ""; `failed` whether that is because a round
    measured nothing.
    """

    rounds: tuple[Round, ...]
    best: tuple[Best, ...]
    stopped: str
    failed: bool = False

    @property
    def score(self) -> Score:
        """All predictions of all rounds compared with the measurements."""
        return score_of([v.to_dict() for r in self.rounds for v in r.validation.networks])

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """The networks of all rounds that gave no stable measurement."""
        return tuple(u for r in self.rounds for u in r.validation.unmeasured)

    def __repr__(self) -> str:
        measured = sum(len(r.validation.networks) for r in self.rounds)
        origin = self.rounds[0].validation.conditions.origin
        lacking = f", {len(self.unmeasured)} not measured" if self.unmeasured else ""
        return (
            f"Rounds({len(self.rounds)} rounds, {measured} networks {origin}, best "
            f"{len(self.best)}{lacking})"
        )

    def __str__(self) -> str:
        return "\n".join(f"round {r.number}\n{r.validation}" for r in self.rounds)

    def to_frame(self) -> pd.DataFrame:
        """One row a measured network of any round: as `Validation.to_frame`, after `round` and
        `folder`."""
        import pandas as pd

        frames = [
            r.validation.to_frame().assign(round=r.number, folder=str(r.folder))
            for r in self.rounds
        ]
        frame = pd.concat(frames, ignore_index=True)
        return frame[["round", "folder", *frame.columns[:-2]]]


def validate_rounds(
    run: Loaded,
    *,
    latency: LatencyModel,
    on: Device,
    into: MeasurementStore,
    top: int = 5,
    rounds: int = 2,
    again: bool = False,
    on_event: Callable[[Event | RoundBegan | Ranked], None] | None = None,
) -> Rounds:
    """Measure the best of a run, in rounds, each by a model fitted on the rounds before, and write
    the measurements into the run. Objectives and limits are those of the run.

    Args:
        run: Finished; a space that is not known by name is given to `load`. Of several devices it
            is validated as a run of this one (`device_view.of_device`), in a folder of its own if
            it is not the first.
        latency: The model at hand. If it is the one that predicted, the report shows where each
            network's predicted milliseconds go.
        on: An entered device, in the state of the model's measurements.
        into: The store; what it holds is not measured again, unless `again`.
        top: How many to measure a round, and to name in the end, ≥ 1.
        rounds: At most, ≥ 1; with one, no model is fitted.
        again: See `into`.
        on_event: As for `devices.profile`, and `RoundBegan`, `Ranked`.
    Raises:
        InvalidArgument: top or rounds < 1; another device or space than the run's.
        SettingsChanged: The device runs under other conditions than when the model was fitted.
        UnsupportedFormat: The run's evaluations, a round or a validation in its folder is damaged.
        NotEnoughData: The store lacks what the model was fitted on.
        UnstableDevice: No network of the first round gave a stable measurement. A network without
            one is in `Rounds.unmeasured` and in `validation.json`; the others count.
        StoreError: Another process works in the run's folder, and is named.
    """
    if rounds < 1 or top < 1:
        raise InvalidArgument(f"rounds and top: 1 or more, got {rounds} and {top}")
    whole = run.whole or run
    run = of_device(run, on.name)
    with lock_run(whole.path):
        whole.check_unchanged()
        run = written(run)
        return _validated_rounds(run, latency, on, into, top, rounds, again, on_event)


def _validated_rounds(
    run: Loaded,
    latency: LatencyModel,
    on: Device,
    into: MeasurementStore,
    top: int,
    rounds: int,
    again: bool,
    on_event: Callable[[Event | RoundBegan | Ranked], None] | None,
) -> Rounds:
    """`validate_rounds`, once the folder is locked."""
    expected = run.conditions
    if rounds > 1:
        evaluated_of(run)  # before anything is measured
    show = on_event or (lambda event: None)
    whole = (run.whole or run).path
    promoted = read_promoted(whole)
    files = {n.candidate: n.exported(whole) for n in promoted.trained} if promoted else {}
    exported = {candidate: file for candidate, file in files.items() if file is not None}
    done: list[Round] = []
    measured_ms: dict[str, float] = {}
    tried: set[str] = set()
    here, ranked, stopped, failed = run, None, "", False
    own = latency.digest == run.settings["latency_model"]
    predicting = latency if own else run.latency_model
    for number in range(1, rounds + 1):
        if number > 1:
            folder = run.path / f"round{number}"
            predicting, shift = round_model(
                folder, into, expected, run_digest(run.settings), measured_ms
            )
            try:
                here = rerank(run, predicting, measured_ms, folder)
            except Infeasible as error:
                stopped = f"no further network is expected to meet the target: {error}"
                break
            ranked = _changed(number, done[-1].front, here.front, shift)
            show(ranked)
            if all(c.block_args in tried for c in here.front):
                stopped = "every network of the front was measured"
                break
        show(RoundBegan(number, rounds, len(here.front)))
        before = earlier(here.path / "validation.json", here, on.conditions)
        try:
            validation = validate(
                replace(here.front, exported=exported),
                on=on,
                into=into,
                top=top,
                known=tried,
                expected=expected,
                again=again,
                on_event=on_event,
            )
        except UnstableDevice as error:
            if not done:
                raise
            # The earlier ones are kept.
            stopped, failed = f"round {number} gave no measurement: {error}", True
            break
        chance = dict(zip((c.id for c in here.front), chances(here.front), strict=True))
        meet = float(sum(chance[v.candidate.id] for v in validation.networks))
        expect = None if run.front.target_ms is None else meet
        done.append(Round(number, here.path, here.front, validation, expect, ranked))
        measured_ms |= {v.candidate.block_args: v.measured_ms for v in validation.networks}
        tried |= {u.candidate.block_args for u in validation.unmeasured} | measured_ms.keys()
        text = document(validation, here, on.conditions, latency=predicting, before=before)
        DOCUMENT.write(here.path / "validation.json", text)
        here.with_measured(
            {c.id: measured_ms[c.block_args] for c in here.front if c.block_args in measured_ms}
        )
    result = Rounds(tuple(done), _best(done, run, top), stopped, failed)
    if rounds > 1:
        path = run.path / "validation.json"
        of_all = {"rounds": [r.to_dict() for r in done], "stopped": stopped}
        of_all["best"] = [b.to_dict() for b in result.best]
        DOCUMENT.write(path, (DOCUMENT.read(path, "Validate again.") or {}) | of_all)
    return result


def _best(rounds: Sequence[Round], run: Loaded, top: int) -> tuple[Best, ...]:
    validated = [(r, v) for r in rounds for v in r.validation.networks]
    rewards = _rewards(run, [v for _, v in validated])
    measured = [
        Best(r.number, f"{r.folder}:{v.candidate.id}", v, reward)
        for (r, v), reward in zip(validated, rewards, strict=True)
    ]
    rank = {"unclear": 1, "misses": 2}
    measured.sort(key=lambda b: (rank.get(b.validated.verdict or "", 0), -b.reward))
    return tuple(measured[:top])


def _rewards(run: Loaded, validated: Sequence[Validated]) -> list[float]:
    """See `Best`."""
    if run.front.target_ms is None:
        return [v.candidate.top1 for v in validated]
    own = f"latency:{run.settings['device']}"
    measured_ms = np.array([v.measured_ms for v in validated])
    values = [{**v.candidate.values, own: v.measured_ms} for v in validated]
    names = values[0].keys() if values else ()
    networks = Evaluations(
        np.empty((len(validated), 0), np.int8),
        measured_ms,
        np.array([v.candidate.top1 for v in validated]),
        np.array([v.candidate.top1_error for v in validated]),
        np.array([v.candidate.outside for v in validated]),
        {name: np.array([row[name] for row in values]) for name in names},
    )
    return [float(reward) for reward in run.spec.rewards(networks)]


def _changed(number: int, old: ParetoFront, new: ParetoFront, shift: float) -> Ranked:
    before, after = ({c.block_args for c in front} for front in (old, new))
    return Ranked(number, shift, len(before & after), len(after - before), len(before - after))
