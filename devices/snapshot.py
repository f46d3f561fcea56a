"""What a device is and how it is: one fixed script, and what its answer says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from ..space.errors import InvalidArgument
from .android import (
    Battery,
    Thermal,
    parse_battery,
    parse_getprop,
    parse_taskset,
    parse_thermalservice,
    plain,
)
from .sysfs import (
    Policy,
    Zone,
    hottest_zone,
    parse_capacities,
    parse_cores,
    parse_cpufreq,
    parse_cpuinfo,
    parse_loadavg,
    parse_meminfo,
    parse_stat,
    parse_zones,
)
from .words import UnreadableOutput, lines_of, unreadable

__all__ = ["SNAPSHOT", "Snapshot", "parse_snapshot"]

T = TypeVar("T")

# For any POSIX shell, Android's included. Nothing is ever put into it. What is not there prints
# nothing. Files are read by the shell itself: on a phone, starting a program for each of some
# hundred takes seconds, and its printf is a program, too.
SNAPSHOT = """\
exec 2>/dev/null
s() { echo; echo "== $1"; }
one() { v=; [ -r "$1" ] && IFS= read -r v <"$1"; }
s uname; uname -m; uname -a
s getprop; getprop
s battery; dumpsys battery
s thermal; dumpsys thermalservice
s zones
for z in /sys/class/thermal/thermal_zone*; do
  one "$z/type"; t=$v; one "$z/temp"
  [ -n "$t" ] && [ -n "$v" ] && echo "$t $v"
done
s capacities
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  one "$c/cpu_capacity"
  [ -n "$v" ] && echo "${c##*/cpu} $v"
done
s cpufreq
for p in /sys/devices/system/cpu/cpufreq/policy[0-9]*; do
  [ -d "$p" ] || continue
  l=
  for f in related_cpus scaling_cur_freq scaling_max_freq cpuinfo_max_freq scaling_governor; do
    one "$p/$f"; l="$l|$v"
  done
  echo "${p##*/} ${l#|}"
done
s stat; grep "^cpu[0-9]" /proc/stat
s loadavg; cat /proc/loadavg
s meminfo; grep MemAvailable /proc/meminfo
s cpuinfo; cat /proc/cpuinfo
s online; cat /sys/devices/system/cpu/online
s allowed; grep Cpus_allowed_list /proc/self/status
s taskset; taskset -p $$
s end
"""
_SECTIONS = (
    "uname", "getprop", "battery", "thermal", "zones", "capacities", "cpufreq", "stat", "loadavg",
    "meminfo", "cpuinfo", "online", "allowed", "taskset", "end",
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """A device as it was when `SNAPSHOT` ran there; what is not told of is empty or None.

    Args:
        machine, uname: `uname -m`, `uname -a`.
        properties: Android's system properties; empty on a system that is no Android.
        battery, thermal: What Android's services say.
        zones: Thermal zones with a plausible heat.
        reported: Capacity of each core where the kernel tells it, 1024 the greatest.
        policies: Cores that share a clock.
        busy: Ticks since the start in which each core was busy.
        load: Load averages of 1, 5 and 15 minutes.
        available_kib: Memory that programs can still have, in KiB.
        cpuinfo: One dictionary a core, and one of the machine.
        online, allowed: Numbers of the cores that are on; of those that this user's programs
            may use.
        affinity: What taskset says of that, as a mask; 0 where there is no taskset.
        unread: One sentence for each part that could not be read.
    """

    machine: str
    uname: str
    properties: dict[str, str]
    battery: Battery | None
    thermal: Thermal | None
    zones: tuple[Zone, ...]
    reported: dict[int, int]
    policies: tuple[Policy, ...]
    busy: dict[int, int]
    load: tuple[float, float, float] | None
    available_kib: int | None
    cpuinfo: tuple[dict[str, str], ...]
    online: tuple[int, ...]
    allowed: tuple[int, ...]
    affinity: int
    unread: tuple[str, ...]

    # -- what it is -------------------------------------------------------------------------------

    @property
    def android(self) -> bool:
        """Whether the system is an Android."""
        return bool(self.properties)

    @property
    def emulated(self) -> bool:
        """Whether it is Android's emulator: of no worth for times."""
        told = self.properties
        return "1" in (told.get("ro.kernel.qemu"), told.get("ro.boot.qemu"))

    @property
    def model(self) -> str:
        """ "Pixel 6 (oriole), Android 14", or what a Linux says of its processor or board."""
        told = self.properties
        if name := told.get("ro.product.marketname") or told.get("ro.product.model"):
            device, release = told.get("ro.product.device"), told.get("ro.build.version.release")
            known = f" ({device})" if device else ""
            return plain(f"{name}{known}" + (f", Android {release}" if release else ""))
        for key in ("Model", "model name", "Hardware", "Processor", "cpu model"):
            for core in reversed(self.cpuinfo):
                if core.get(key):
                    return plain(core[key])
        return plain(self.machine) or "unknown"

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of hardware and system build; alike from start to start."""
        if self.properties:
            kept = ("ro.product.", "ro.soc.", "ro.build.fingerprint", "ro.board.platform")
            told = sorted((k, v) for k, v in self.properties.items() if k.startswith(kept))
            identity = [f"{k}={v}" for k, v in told]
        else:
            # Not all of it: clocks change, cores are switched off, a serial number is private.
            kinds = ("model name", "Hardware", "Model", "CPU implementer", "CPU part", "cpu family",
                     "model", "stepping", "flags", "Features", "isa")  # fmt: skip
            found = {(k, core[k]) for core in self.cpuinfo for k in kinds if k in core}
            identity = [f"{k}={' '.join(sorted(v.split()))}" for k, v in sorted(found)]
        identity += [self.machine, str(len(self._every))]
        return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]

    # -- its cores --------------------------------------------------------------------------------

    @cached_property
    def _every(self) -> dict[int, int]:
        """Capacity of every core that there is, whether on or not; 0 for all where not told."""
        clocks = {c: p.greatest_mhz or 0.0 for p in self.policies for c in p.cores}
        cores = {*self.reported, *clocks, *self.online, *self.busy}
        if not cores:
            cores = set(range(sum("processor" in x for x in self.cpuinfo)))
        if any(self.reported.values()):
            return {c: self.reported.get(c, 0) for c in sorted(cores)}
        greatest = max(clocks.values(), default=0.0) or 1.0
        return {c: round(1024 * clocks.get(c, 0.0) / greatest) for c in sorted(cores)}

    @cached_property
    def capacities(self) -> dict[int, int]:
        """Capacity of each core that can be used now: 1024 for the strongest, 0 if not told.

        Without the kernel's word, in proportion to the hardware's greatest clock.
        """
        allowed = self.allowed or tuple(c for c in self._every if self.affinity >> c & 1)
        usable = set(self.online or self._every) & set(allowed or self._every)
        return {c: k for c, k in self._every.items() if c in usable}

    @property
    def can_pin(self) -> bool:
        """Whether a program can be bound to cores: a taskset is there, and knows its mask."""
        return self.affinity > 0 and bool(self.capacities)

    def strongest(self, threads: int, before: Snapshot | None = None) -> tuple[int, ...]:
        """Numbers of the cores to compute on: the greatest capacity first, then the idlest.

        Args:
            threads: How many, at least 1.
            before: An earlier snapshot, to tell which cores were busy since. Without it, and
                among equals, the highest number: systems put their own work on the first.
        Raises:
            InvalidArgument: Fewer cores can be used.
        """
        known = self.capacities
        if not 1 <= threads <= len(known):
            raise InvalidArgument(f"{threads} threads: {len(known)} cores can be used; 1 or more")
        since = before.busy if before else self.busy
        busy = {c: self.busy.get(c, 0) - since.get(c, 0) for c in known}
        # A tick or two of difference says nothing.
        ranked = sorted(known, key=lambda c: (-known[c], busy[c] // 3, -c))
        return tuple(sorted(ranked[:threads]))

    def core_class(self, cores: Iterable[int]) -> str:
        """Which kind of cores these are, in words that do not depend on their numbers.

        "2 cores of capacity 1024", "1 of 2 cores of capacity 1024"; where all cores of the
        machine are alike, "one class of 8 cores", however many are asked of.

        Raises:
            InvalidArgument: A number that no core has.
        """
        every, chosen = self._every, set(cores)
        if missing := chosen - set(every):
            raise InvalidArgument(f"no core {min(missing)}; there are {sorted(every)}")
        if len(set(every.values())) == 1:
            return f"one class of {_cores(len(every))}"
        words = []
        for capacity in sorted({every[c] for c in chosen}, reverse=True):
            here = sum(every[c] == capacity for c in chosen)
            all_ = sum(k == capacity for k in every.values())
            share = "" if here == all_ else f"{here} of "
            words.append(f"{share}{_cores(all_)} of capacity {capacity}")
        return ", ".join(words)

    @property
    def _policy(self) -> Policy | None:
        """That of the strongest core that can be used."""
        if not self.capacities:
            return None
        (core,) = self.strongest(1)
        return next((p for p in self.policies if core in p.cores), None)

    @property
    def governor(self) -> str:
        """Frequency governor of the strongest core; "none" where there is none."""
        return (self._policy.governor if self._policy else "") or "none"

    # -- how it is --------------------------------------------------------------------------------

    @property
    def clock_mhz(self) -> float | None:
        """Clock of the strongest core at that moment, in MHz."""
        return self._policy.current_mhz if self._policy else None

    @property
    def temperature_c(self) -> float | None:
        """The hottest of what computes, in °C: by Android's service, else by the kernel's zones."""
        told = self.thermal.hottest_c if self.thermal else None
        return told if told is not None else hottest_zone(self.zones)

    def circumstances(self) -> dict[str, Any]:
        """What may explain doubt later; only what is known."""
        policy = self._policy
        limited = policy and policy.limit_mhz and policy.limit_mhz < (policy.greatest_mhz or 0)
        found = {
            "temperature_c": self.temperature_c,
            "thermal_status": self.thermal.throttling if self.thermal else None,
            "clock_mhz": self.clock_mhz,
            "clock_limit_mhz": policy.limit_mhz if policy and limited else None,
            "load": self.load[0] if self.load else None,
            "online": len(self.online) or None,
            "battery_percent": self.battery.level_percent if self.battery else None,
            "battery_c": self.battery.temperature_c if self.battery else None,
            "charging": self.battery.plugged if self.battery else None,
        }
        return {k: v for k, v in found.items() if v is not None}

    @property
    def summary(self) -> str:
        """One line on cores, governor, heat and battery."""
        counts: dict[int, int] = {}
        for capacity in sorted(self._every.values(), reverse=True):
            counts[capacity] = counts.get(capacity, 0) + 1
        kinds = ", ".join(f"{n} of capacity {k}" for k, n in counts.items())
        words = [_cores(len(self._every)) + (f" ({kinds})" if len(counts) > 1 else "")]
        if self.emulated:
            words.append("emulated")
        if self.governor != "none":
            words.append(f"governor {self.governor}")
        if self.temperature_c is not None:
            words.append(f"{self.temperature_c:.0f} °C")
        if self.battery:
            words.append(f"battery {self.battery.level_percent:.0f} %, {self.battery.status}")
        return "; ".join(words)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def parse_snapshot(text: str) -> Snapshot:
    """Read what `SNAPSHOT` printed. A part that is garbled is left out and named in `unread`.

    Raises:
        UnreadableOutput: It is cut off, or its parts are not each there once and in order.
    """
    sections: dict[str, list[str]] = {}
    inside: list[str] = []
    for line in lines_of(text):
        if match := re.fullmatch("== ([a-z]{1,20})", line):
            due = _SECTIONS[len(sections)] if len(sections) < len(_SECTIONS) else ""
            if match[1] != due:
                expected = f"'== {due}' next" if due else "nothing after '== end'"
                raise unreadable("snapshot", expected, line)
            inside = sections.setdefault(due, [])
        else:
            inside.append(line)
    if "end" not in sections:
        last = next((x for x in reversed(lines_of(text))), "")
        raise unreadable("snapshot", "a text up to '== end'; it is cut off after this", last)
    if sections["end"]:
        raise unreadable("snapshot", "nothing after '== end'", sections["end"][0])
    unread: list[str] = []

    def read(name: str, parse: Callable[[str], T], default: T) -> T:
        part = "\n".join(sections[name])
        if not part.strip():
            return default
        try:
            return parse(part)
        except UnreadableOutput as error:
            unread.append(str(error))
            return default

    uname = [plain(x) for x in sections["uname"]]
    return Snapshot(
        machine=uname[0] if uname else "",
        uname=uname[1] if len(uname) > 1 else "",
        properties=read("getprop", parse_getprop, {}),
        battery=read("battery", parse_battery, None),
        thermal=read("thermal", parse_thermalservice, None),
        zones=read("zones", parse_zones, ()),
        reported=read("capacities", parse_capacities, {}),
        policies=read("cpufreq", parse_cpufreq, ()),
        busy=read("stat", parse_stat, {}),
        load=read("loadavg", parse_loadavg, None),
        available_kib=read("meminfo", parse_meminfo, None),
        cpuinfo=read("cpuinfo", parse_cpuinfo, ()),
        online=read("online", parse_cores, ()),
        allowed=read("allowed", lambda t: parse_cores(t.rpartition(":")[2]), ()),
        affinity=read("taskset", parse_taskset, 0),
        unread=tuple(unread),
    )
