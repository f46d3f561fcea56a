"""What a Linux system says of itself: cores, capacities, governor, temperature, load."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Processor", "circumstances", "idlest_cores", "processor"]

_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Processor:
    """The processor as the system describes it.

    Args:
        model: Its name.
        cores: Numbers of the cores that this process may use.
        capacities: Relative capacity of each of them; equal where all are alike.
        governor: Frequency governor of the strongest core; "none" where there is none.
        fingerprint: Short hash of name, architecture, feature flags and core count.
        online: Cores of the machine.
    """

    model: str
    cores: tuple[int, ...]
    capacities: tuple[int, ...]
    governor: str
    fingerprint: str
    online: int

    @property
    def core_class(self) -> str:
        """Which class of core is measured on, alike from run to run."""
        if len(set(self.capacities)) == 1:
            return f"one class of {self.online} cores"
        return f"cores of capacity {max(self.capacities)}"

    @property
    def strongest(self) -> tuple[int, ...]:
        """Numbers of the cores with the greatest capacity."""
        top = max(self.capacities)
        return tuple(c for c, k in zip(self.cores, self.capacities, strict=True) if k == top)


def _read(path: Path, default: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default


def processor() -> Processor:
    """Ask the system at hand."""
    info = _read(Path("/proc/cpuinfo"))
    fields: dict[str, str] = {}
    for line in info.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    model = fields.get("model name") or fields.get("Hardware") or platform.processor() or "unknown"
    affinity = getattr(os, "sched_getaffinity", None)
    cores = tuple(sorted(affinity(0))) if affinity else tuple(range(os.cpu_count() or 1))
    capacities = tuple(int(_read(_CPU / f"cpu{c}" / "cpu_capacity", "0") or 0) for c in cores)
    online = os.cpu_count() or 1  # of the machine, whatever part of it this process may use
    strongest = cores[capacities.index(max(capacities))]
    governor = _read(_CPU / f"cpu{strongest}" / "cpufreq" / "scaling_governor") or "none"
    flags = fields.get("flags") or fields.get("Features") or ""
    identity = "\n".join([model, platform.machine(), " ".join(sorted(flags.split())), str(online)])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return Processor(model, cores, capacities, governor, fingerprint, online)


def _busy_ticks() -> dict[int, int]:
    found = {}
    for line in _read(Path("/proc/stat")).splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            # All but idle (4th) and iowait (5th).
            found[int(name[3:])] = sum(int(t) for i, t in enumerate(ticks[:8]) if i not in (3, 4))
    return found


def idlest_cores(candidates: tuple[int, ...], count: int, watch_s: float = 0.2) -> tuple[int, ...]:
    """The `count` least busy of these cores, watched for `watch_s` seconds.

    Among equals the highest number: systems put their own work on the first.
    """
    before = _busy_ticks()
    time.sleep(watch_s)
    after = _busy_ticks()
    busy = {c: after.get(c, 0) - before.get(c, 0) for c in candidates}
    # A tick or two of difference says nothing.
    return tuple(sorted(sorted(candidates, key=lambda c: (busy[c] // 3, -c))[:count]))


def circumstances() -> dict[str, float]:
    """What may explain doubt later: load average, hottest zone in °C, clock in MHz."""
    found: dict[str, float] = {}
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    zones = [_read(zone / "temp") for zone in Path("/sys/class/thermal").glob("thermal_zone*")]
    celsius = [int(t) / 1000 for t in zones if t.lstrip("-").isdigit()]
    if celsius:
        found["temperature_c"] = max(celsius)
    clock = _read(_CPU / "cpu0" / "cpufreq" / "scaling_cur_freq")
    if clock.isdigit():
        found["clock_mhz"] = int(clock) / 1000
    return found
