"""Gate: which readings a device's own speed allows to be believed."""

from __future__ import annotations

from collections import deque
from statistics import median

from .device import Reading

__all__ = ["Gate"]

_LEAST = 0.06  # below that nothing is to be gained from refusing
_SCATTERS = 4.0
_CLOCK_LIMIT = 0.25
# One run in ten that lost its core goes with many more that shared their caches unnoticed.
_CROWDED, _CROWDED_TIMES = 0.05, 2.0
_FASTER, _FASTER_IN_A_ROW = 0.15, 5
# Of several threads: what two threads gain changes by half with where a computer's two virtual
# cores lie, for seconds to a minute, and a model's gain is not the sentinel's.
_SEVERAL_LIMIT = 0.25
_SEVERAL_IN_A_ROW = 24  # with the pauses between them a minute and more
_MOST_RESTARTS = 2


class Gate:
    """Watches the sentinel, the clock and the scheduler, and says what is not to be believed.

    Where the sentinel mostly stands is the centre of the narrowest band that holds half of the
    last readings, refused ones too; how far a reading may stand from there follows from the
    device itself: four times the half-width of the band that holds two thirds of them, at least
    6 % and at most `limit`. So a quiet phone that throttles is found out at once, and a computer
    whose neighbours come and go is not refused for good. A change for the slower is believed only
    when half of a long memory has seen it. A change for the faster is neither heat nor another
    program: then what was usual was slow, and is forgotten.

    Args:
        limit: Greatest relative drift of the sentinel that is ever believed.
        memory: How many readings are remembered.
        threads: That compute. Several have two speeds on many computers: the usual one then stays
            what it was at the start, and the other is refused until it has lasted.

    Attributes:
        sped_up: Set when the device turned out faster than was usual; reset by who reads it.
        off_speed: Whether the last reading was refused for the device's speed.
        anchor_ms: Where the sentinel stood at the start, once it is set: `limit` counts from there
            too, so that a speed which sinks slowly does not take its own measure along.
    """

    def __init__(self, limit: float, memory: int = 600, threads: int = 1) -> None:
        self.several = threads > 1
        self.most = min(limit, _SEVERAL_LIMIT) if self.several else limit
        self.anchor_ms: float | None = None
        self._best_mhz = 0.0
        self.sped_up = self.off_speed = False
        self._readings: deque[float] = deque(maxlen=memory)
        self._clocks: deque[float] = deque(maxlen=memory)
        self._preempted: deque[float] = deque(maxlen=memory)
        self._faster: list[float] = []
        self._restarts = 0

    @property
    def usual_ms(self) -> float:
        """Where the sentinel mostly stands, in ms."""
        if self.several and self.anchor_ms is not None:
            return self.anchor_ms
        return _band(self._readings, 0.5)[0]

    @property
    def limit(self) -> float:
        """Relative drift that is believed now."""
        centre, width = _band(self._readings, 2 / 3)
        return min(self.most, max(_LEAST, _SCATTERS * width / 2 / centre))

    def judge(self, reading: Reading) -> str:
        """Take note of a reading; why it is not believed, or ""."""
        sentinel_ms = median(reading.sentinel_ms)
        share = reading.preempted / (reading.preempted + len(reading.samples_ms))
        slow = self.objection(sentinel_ms, reading.clock_mhz)
        self.off_speed = bool(slow)
        return slow or self.crowd(share)

    def widen(self, sentinel_ms: float) -> bool:
        """Believe readings at this speed too from now on, if it is within the greatest limit.

        Within it the sentinel divides out what it shares with the models beside it.
        """
        if abs(sentinel_ms / (self.anchor_ms or self.usual_ms) - 1) > self.most:
            return False
        # As many as there are of the usual speed: the band that holds most then holds both.
        room = (self._readings.maxlen or 0) // 2
        self._readings.extend([sentinel_ms] * min(len(self._readings), room))
        return True

    def objection(self, sentinel_ms: float, clock_mhz: float = 0.0, *, weight: int = 1) -> str:
        """Take note of a speed; why what was taken at it is not believed, or "".

        Args:
            sentinel_ms: Time of the sentinel beside it, in ms, > 0.
            clock_mhz: Clock while it was taken; 0 where it is not known.
            weight: How many readings it counts for.
        """
        self._readings.extend([sentinel_ms] * weight)
        usual, limit = self.usual_ms, self.limit
        off = sentinel_ms / usual - 1
        if off < -max(limit, _FASTER):
            self._notice_faster(sentinel_ms)
        else:
            self._faster.clear()
        anchor = self.anchor_ms or usual
        if abs(sentinel_ms / anchor - 1) > self.most:
            return (
                f"the sentinel beside it took {sentinel_ms:.3f} ms; it stood at {anchor:.3f} ms at the "
                f"start ({sentinel_ms / anchor - 1:+.0%}, limit ±{self.most:.0%}): it throttles, or "
                "another program has the core"
            )
        if abs(off) > limit:
            return (
                f"the sentinel beside it took {sentinel_ms:.3f} ms instead of {usual:.3f} ms "
                f"({off:+.0%}, limit ±{limit:.0%}): another program has the core, or it throttles"
            )
        if clock_mhz > 0:
            self._clocks.append(clock_mhz)
            mostly = self._best_mhz or _band(self._clocks, 0.5)[0]
            # Clocks of a computer wander without its times following: both must speak for it.
            if clock_mhz < (1 - _CLOCK_LIMIT) * mostly and off > _LEAST:
                return f"the clock fell to {clock_mhz:.0f} MHz from {mostly:.0f} MHz: it throttles"
        return ""

    def anchor(self, stated_ms: float | None = None) -> None:
        """Take the speed and the clock that are usual now for those of the start.

        Args:
            stated_ms: The speed at which earlier jobs' numbers are stated; of several threads'
                two speeds it is the one to wait for.
        """
        self.anchor_ms = None
        if self.several and stated_ms:
            near = [r for r in self._readings if abs(r / stated_ms - 1) <= self.most]
            self.anchor_ms = _band(deque(near), 0.5)[0] if near else stated_ms
        else:
            self.anchor_ms = self.usual_ms
        self._best_mhz = _band(self._clocks, 0.5)[0] if self._clocks else 0.0

    def _notice_faster(self, sentinel_ms: float) -> None:
        if self.several and self.anchor_ms is None:
            return  # both speeds are still being watched
        self._faster.append(sentinel_ms)
        enough = _SEVERAL_IN_A_ROW if self.several else _FASTER_IN_A_ROW
        if len(self._faster) >= enough and self._restarts < _MOST_RESTARTS:
            self._readings.clear()
            # As heavy as the readings of a job's beginning.
            self._readings.extend(self._faster * 10)
            self._faster.clear()
            self._clocks.clear()
            self.anchor()
            self._restarts += 1
            self.sped_up = True

    def crowd(self, share: float) -> str:
        """Whether far more runs than usual lost the core."""
        self._preempted.append(share)
        limit = max(_CROWDED, _CROWDED_TIMES * median(self._preempted))
        if share <= limit:
            return ""
        return (
            f"{share:.0%} of its runs lost the core to another program (limit {limit:.0%}); the "
            "others shared their caches with it"
        )


def _band(values: deque[float], share: float) -> tuple[float, float]:
    """Median of the narrowest band that holds this share of the values, and its width."""
    ordered = sorted(values)
    need = min(len(ordered), int(len(ordered) * share) + 1)
    start = min(range(len(ordered) - need + 1), key=lambda i: ordered[i + need - 1] - ordered[i])
    band = ordered[start : start + need]
    return median(band), band[-1] - band[0]
