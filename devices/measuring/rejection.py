"""Which readings are rejected: those without a time, and those taken at another speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from operator import sub
from statistics import median

from phonenas.data.measurement import MOST_MS

from ..device import Reading

__all__ = ["DriftFilter", "rejection_reason"]

_LEAST = 0.06  # rejecting readings below this drift gains nothing
_SCATTERS = 4.0
# Share of the last readings that is accepted, up to the limits below. Fewer, and a computer with
# other programs would be waited for; more, and each of its subjects would need further rounds.
_KEPT = 0.7
_FARTHEST = 1.0  # drift of the sentinel beyond which a reading is of no use on any device
_LONG_MS = 2.0  # runs from here on lose the core more often: they have a usual share of their own
_CLOCK_LIMIT = 0.25
# One run in ten may lose its core by chance; where more do, others shared their caches unnoticed.
_CROWDED, _CROWDED_TIMES = 0.10, 2.0
_FASTER, _FASTER_IN_A_ROW = 0.15, 5
# Several threads: the gain of a second thread changes by half with the place of a computer's two
# virtual cores, for seconds to a minute, and differs between a model and the sentinel.
_SEVERAL_LIMIT = 0.25
_SEVERAL_IN_A_ROW = 24  # with the pauses between them a minute and more
_MOST_RESTARTS = 2


def rejection_reason(reading: Reading, provider: str, partly: bool = False) -> str:
    """The reason to reject a reading, by itself; "" if there is none.

    Args:
        reading: Of a model.
        provider: That was asked for.
        partly: Whether it may leave nodes of the model to other kernels.
    """
    if reading.error:
        return reading.error
    ran = reading.provider.split(",")[0] if partly else reading.provider
    if ran != provider:  # a fall-back that nothing reported
        return f"asked for {provider}, and {reading.provider or 'nothing'} ran"
    if not reading.samples_ms or not reading.sentinel_ms:
        return "it has no time"
    times = reading.samples_ms + reading.sentinel_ms
    if not all(0 < s <= MOST_MS for s in times):  # NaN compares false
        return f"a time that is not a positive finite number of at most {MOST_MS:.0e} ms"
    return ""


class DriftFilter:
    """Follows the sentinel's time, the clock and the preemptions, and rejects readings.

    The usual time of the sentinel is the centre of the narrowest band that holds half of the last
    readings, rejected ones included. The allowed drift from it follows from the device's own
    scatter, in which each loading of the sentinel has its level: four times the half-width of the
    band that holds two thirds of them, at least 6 %.

    Without `most`, as on a computer, the farthest 30 % of the last readings are rejected at most:
    its other programs seldom end, and what counts is its usual state, not that of the start. With
    `most`, as on a phone, no reading farther off is accepted, from the start's speed either: it
    throttles then, and cools again. A slower speed becomes the usual one only when half of a long
    memory is at it. A faster one is not heat: the usual one was too slow, and is forgotten.

    Args:
        most: Greatest relative drift of the sentinel that is ever accepted; None for no such limit.
        memory: How many readings are remembered; without `most` half as many.
        threads: Threads that compute. Several have two speeds on many computers: the usual one then
            stays that of the start, and the other is rejected until it has lasted.

    Attributes:
        moved: Set when the state at the start proved to be an unusual one; whoever reads it resets
            it. Of a phone it is a slower one: it throttled.
        off_speed: Whether the last reading was rejected for the device's speed.
        anchor_ms: Time of the sentinel at the start, once it is set: `most` counts from there too,
            so that a slow change of speed does not move its own limit.
    """

    def __init__(self, most: float | None, memory: int = 600, threads: int = 1) -> None:
        self.several = threads > 1
        self.most = min(most or _SEVERAL_LIMIT, _SEVERAL_LIMIT) if self.several else most
        self.anchor_ms: float | None = None
        self._best_mhz = 0.0
        self.moved = self.off_speed = False
        memory = memory if self.most is not None else memory // 2
        self._readings: deque[float] = deque(maxlen=memory)
        self._clocks: deque[float] = deque(maxlen=memory)
        self._preempted = (deque[float](maxlen=memory), deque[float](maxlen=memory))
        self._faster: list[float] = []
        self._restarts = 0

    @property
    def usual_ms(self) -> float:
        """Usual time of the sentinel, in ms."""
        if self.several and self.anchor_ms is not None:
            return self.anchor_ms
        return _band(self._readings, 0.5)[0]

    @property
    def limit(self) -> float:
        """Relative drift that is accepted now."""
        centre, width = _band(self._readings, 2 / 3)
        limit = max(_LEAST, _SCATTERS * width / 2 / centre)
        if self.most is not None:
            return min(self.most, limit)
        usual = self.usual_ms
        off = [abs(ms / usual - 1) for ms in self._readings]
        return min(_FARTHEST, max(limit, _quantile(off)))

    @property
    def belongs_ms(self) -> tuple[float, float]:
        """Times of the sentinel, in ms, that belong to the usual state: the least, the greatest."""
        if self.most is not None:
            return 0.0, self.usual_ms * (1 + self.limit)
        centre, width = _band(self._readings, 0.5)
        factor = 1 + max(_FASTER, _SCATTERS * width / 2 / centre)
        return centre / factor, centre * factor

    def check(self, reading: Reading) -> str:
        """Record a reading; the reason to reject it, or ""."""
        sentinel_ms = median(reading.sentinel_ms)
        share = reading.preempted / (reading.preempted + len(reading.samples_ms))
        slow = self.check_speed(sentinel_ms, reading.clock_mhz)
        self.off_speed = bool(slow)
        return slow or self.check_preemption(share, median(reading.samples_ms))

    def widen(self, sentinel_ms: float) -> bool:
        """Accept readings at this speed too from now on, if it is within the greatest limit."""
        anchor = self.anchor_ms or self.usual_ms
        if self.most is not None and abs(sentinel_ms / anchor - 1) > self.most:
            return False
        # As many as there are of the usual speed: the narrowest band then holds both.
        room = (self._readings.maxlen or 0) // 2
        self._readings.extend([sentinel_ms] * min(len(self._readings), room))
        return True

    def check_speed(self, sentinel_ms: float, clock_mhz: float = 0.0, *, weight: int = 1) -> str:
        """Record a speed; the reason to reject readings at it, or "".

        Args:
            sentinel_ms: Time of the sentinel beside it, in ms, > 0.
            clock_mhz: Clock meanwhile, in MHz; 0 if unknown.
            weight: How many readings it counts for.
        """
        self._readings.extend([sentinel_ms] * weight)
        usual, limit = self.usual_ms, self.limit
        off = sentinel_ms / usual - 1
        if self.most is not None and off < -max(limit, _FASTER):
            self._notice_faster(sentinel_ms)
        else:
            self._faster.clear()
        anchor = self.anchor_ms or usual
        if self.most is None and abs(usual / anchor - 1) > _FASTER:
            self._restart()
        if self.most is not None and abs(sentinel_ms / anchor - 1) > self.most:
            return (
                f"the sentinel beside it took {sentinel_ms:.3f} ms; it took {anchor:.3f} ms at "
                f"the start ({sentinel_ms / anchor - 1:+z.0%}, limit ±{self.most:.0%}): it "
                "throttles, or another program has the core"
            )
        if abs(off) > limit:
            return (
                f"the sentinel beside it took {sentinel_ms:.3f} ms instead of {usual:.3f} ms "
                f"({off:+z.0%}, limit ±{limit:.0%}): another program has the core, or it throttles"
            )
        if clock_mhz > 0:
            self._clocks.append(clock_mhz)
            mostly = self._best_mhz or _band(self._clocks, 0.5)[0]
            # A computer's clock changes without its times following: both must be slower.
            if clock_mhz < (1 - _CLOCK_LIMIT) * mostly and off > _LEAST:
                return f"the clock fell to {clock_mhz:.0f} MHz from {mostly:.0f} MHz: it throttles"
        return ""

    def anchor(self, usual_ms: float | None = None) -> None:
        """Make the speed and the clock that are usual now those of the start.

        Args:
            usual_ms: Usual time of the sentinel in earlier jobs; of the two speeds of several
                threads it is the one to wait for.
        """
        self.anchor_ms = None
        if self.several and usual_ms:
            near = [r for r in self._readings if abs(r / usual_ms - 1) <= (self.most or 0)]
            self.anchor_ms = _band(deque(near), 0.5)[0] if near else usual_ms
        else:
            self.anchor_ms = self.usual_ms
        self._best_mhz = _band(self._clocks, 0.5)[0] if self._clocks else 0.0

    def forget(self) -> None:
        """Drop the speeds that were seen, before the start is watched again."""
        self._readings.clear()
        self._clocks.clear()
        self._faster.clear()
        self.anchor_ms = None

    def _notice_faster(self, sentinel_ms: float) -> None:
        if self.several and self.anchor_ms is None:
            return  # both speeds are still being observed
        self._faster.append(sentinel_ms)
        enough = _SEVERAL_IN_A_ROW if self.several else _FASTER_IN_A_ROW
        if len(self._faster) >= enough and self._restarts < _MOST_RESTARTS:
            self._readings.clear()
            # With the weight of the readings at a job's start.
            self._readings.extend(self._faster * 10)
            self._faster.clear()
            self._clocks.clear()
            self._restart()

    def _restart(self) -> None:
        if self._restarts < _MOST_RESTARTS:
            self.anchor()
            self._restarts += 1
            self.moved = True

    def check_preemption(self, share: float, run_ms: float = 0.0) -> str:
        """Record the share of preempted runs; the reason to reject the reading, or "".

        Args:
            share: In [0, 1].
            run_ms: Time of a run, in ms.
        """
        shares = self._preempted[run_ms >= _LONG_MS]
        shares.append(share)
        limit = max(_CROWDED, _CROWDED_TIMES * median(shares), _quantile(shares))
        if share <= limit:
            return ""
        return (
            f"{share:.0%} of its runs lost the core to another program (limit {limit:.0%}); the "
            "others shared their caches with it"
        )


def _quantile(values: Collection[float]) -> float:
    """What the share `_KEPT` of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(_KEPT * len(values)))]


def _band(values: deque[float], share: float) -> tuple[float, float]:
    """Median of the narrowest band that holds this share of the values, and its width."""
    ordered = sorted(values)
    need = min(len(ordered), int(len(ordered) * share) + 1)
    widths = list(map(sub, ordered[need - 1 :], ordered))
    start = widths.index(min(widths))
    band = ordered[start : start + need]
    return median(band), band[-1] - band[0]
