"""Snapshot: what a device is and its present state, by one fixed script and its output."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from phonenas.space.errors import InvalidArgument

from .android_text import (
    Battery,
    Thermal,
    parse_battery,
    parse_getprop,
    parse_taskset,
    parse_thermalservice,
    plain,
)
from .device_text import UnreadableOutput, lines_of, unreadable
from .sysfs_text import (
    Policy,
    Zone,
    hottest_zone,
    parse_allowed,
    parse_capacities,
    parse_cores,
    parse_cpufreq,
    parse_cpuinfo,
    parse_loadavg,
    parse_pressure,
    parse_quota,
    parse_stat,
    parse_zones,
)

__all__ = ["SNAPSHOT", "Snapshot", "parse_snapshot"]

T = TypeVar("T")

# For any POSIX shell, Android's included. Nothing is inserted. What a device lacks prints nothing.
# The shell itself reads the files: on a phone, a hundred programs (printf is one) take seconds.
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
s cpuinfo; cat /proc/cpuinfo || sysctl machdep.cpu.brand_string hw.model hw.ncpu
s online; cat /sys/devices/system/cpu/online
s allowed; grep Cpus_allowed_list /proc/self/status
one /sys/fs/cgroup/cpu.max; q=$v
one /sys/fs/cgroup/cpu/cpu.cfs_quota_us; [ -n "$v" ] && q=$v
one /sys/fs/cgroup/cpu/cpu.cfs_period_us; [ -n "$q" ] && echo "Cpu_quota: $q $v"
one /proc/pressure/cpu; [ -n "$v" ] && echo "Pressure: $v"
s taskset; taskset -p $$
s end
"""
_SECTIONS = tuple(re.findall(r"^s (\w+)", SNAPSHOT, re.M))
# What is unknown where a section cannot be read; the others are called by their names.
_UNKNOWN = {
    "getprop": "model and build",
    "thermal": "thermal status",
    "battery": "battery level",
    "zones": "thermal zones",
}
# Of /proc/cpuinfo: not clocks, which change, nor a serial number, which is private.
_LASTING = re.findall(
    r"[^|]+",
    "model name|Hardware|Model|CPU implementer|CPU part|cpu family|model|stepping|flags|Features|"
    "isa|machdep.cpu.brand_string|hw.model",
)
_OF_A_MAC = (
    "macOS binds no program to a core, and does not tell what it runs beside one, how often that "
    "takes the core, its clocks, temperature or peak memory: close other programs, and look at the "
    "spread of the times"
)
# Android's emulators: the virtual boards goldfish and ranchu, and Cuttlefish.
_EMULATORS = re.compile(r"goldfish|ranchu|cutf_cvm|vsoc")


@dataclass(frozen=True)
class Snapshot:
    """A device at the time when `SNAPSHOT` ran on it; what is unknown is empty or None.

    Args:
        machine: `uname -m`.
        properties: Android's system properties; empty on a system that is not Android.
        battery, thermal: Of Android's services.
        zones: Thermal zones with a plausible temperature.
        reported: Capacity of each core if the kernel reports it, 1024 the greatest.
        policies: Cores that share a clock.
        busy: Ticks since the start in which each core was busy.
        load: Load averages of 1, 5 and 15 minutes.
        cpuinfo: One dictionary a core, and one of the machine (of a Mac, what sysctl prints).
        online, allowed: Numbers of the cores that are on; of those that this user's programs
            may use.
        quota: Processor time that a container may use, in cores (0.5: half of one); None for all.
        pressure: Share of the last ten seconds in which a program waited for a core, in %; None
            where the kernel does not tell it.
        affinity: `allowed` by taskset, as a mask; 0 without taskset.
        system: "android" or "linux", by which services answered, whatever they printed; "darwin"
            for a Mac.
        unread: One sentence for each part that could not be read: what is unknown, and why.
    """

    machine: str
    properties: dict[str, str]
    battery: Battery | None
    thermal: Thermal | None
    zones: tuple[Zone, ...]
    reported: dict[int, int]
    policies: tuple[Policy, ...]
    busy: dict[int, int]
    load: tuple[float, float, float] | None
    cpuinfo: tuple[dict[str, str], ...]
    online: tuple[int, ...]
    allowed: tuple[int, ...]
    quota: float | None
    pressure: float | None
    affinity: int
    system: str
    unread: tuple[str, ...]

    # -- what it is -------------------------------------------------------------------------------

    @property
    def android(self) -> bool:
        """Whether the system is an Android."""
        return self.system == "android"

    @property
    def emulated(self) -> bool:
        """Whether an emulator runs it: Android's, or one of another processor (qemu-user).

        The latter answers `uname` with its own processor and /proc/cpuinfo with the computer's.
        """
        flags = [self.properties.get(k) for k in ("ro.kernel.qemu", "ro.boot.qemu")]
        boards = [self.properties.get(k, "") for k in ("ro.hardware", "ro.boot.hardware")]
        if "1" in flags or any(_EMULATORS.match(b) for b in boards):
            return True
        keys = {k for core in self.cpuinfo for k in core}
        arm = self.machine.startswith(("aarch64", "arm"))
        x86 = self.machine in ("x86_64", "i686", "i386")
        return (arm and "vendor_id" in keys) or (x86 and "CPU implementer" in keys)

    @property
    def hardware_serial(self) -> str:
        """The phone's serial number, equal however it is reached; "" if unknown or emulated."""
        serial = self.properties.get("ro.serialno", "")
        return "" if self.emulated or serial == "unknown" else serial

    @property
    def model(self) -> str:
        """ "Pixel 6 (oriole), Android 14", or a Linux computer's processor or board."""
        get = self.properties.get
        if name := get("ro.product.marketname") or get("ro.product.model"):
            device, release = get("ro.product.device"), get("ro.build.version.release")
            code_name = f" ({device})" if device else ""
            return plain(f"{name}{code_name}" + (f", Android {release}" if release else ""))
        of_mac = ("machdep.cpu.brand_string", "hw.model")
        for key in ("Model", "model name", "Hardware", "Processor", "cpu model", *of_mac):
            for core in reversed(self.cpuinfo):
                if core.get(key):
                    return plain(core[key])
        return plain(self.machine) or "unknown"

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of hardware and system build; equal after each restart."""
        if self.properties:
            kept = ("ro.product.", "ro.soc.", "ro.build.fingerprint", "ro.board.platform")
            properties = sorted((k, v) for k, v in self.properties.items() if k.startswith(kept))
            identity = [f"{k}={v}" for k, v in properties]
        else:
            kept_lines = {x for core in self.cpuinfo for x in core.items() if x[0] in _LASTING}
            identity = [f"{k}={' '.join(sorted(v.split()))}" for k, v in sorted(kept_lines)]
        identity += [self.machine, str(len(self._every))]
        return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]

    # -- its cores --------------------------------------------------------------------------------

    @cached_property
    def _every(self) -> dict[int, int]:
        """Capacity of every core, on or off; 0 for all if unknown."""
        clocks = {c: p.greatest_mhz or 0.0 for p in self.policies for c in p.cores}
        cores = {*self.reported, *clocks, *self.online, *self.busy}
        if not cores:
            of_mac = (x.get("hw.ncpu", "") for x in self.cpuinfo)
            count = next((int(n) for n in of_mac if re.fullmatch("[0-9]{1,4}", n)), 0)
            cores = set(range(count or sum("processor" in x for x in self.cpuinfo)))
        if any(self.reported.values()):
            return {c: self.reported.get(c, 0) for c in sorted(cores)}
        greatest = max(clocks.values(), default=0.0) or 1.0
        return {c: round(1024 * clocks.get(c, 0.0) / greatest) for c in sorted(cores)}

    @cached_property
    def capacities(self) -> dict[int, int]:
        """Capacity of each core that can be used now: 1024 for the strongest, 0 if unknown.

        If the kernel does not report it, in proportion to the hardware's greatest clock.
        """
        allowed = self.allowed or tuple(c for c in self._every if self.affinity >> c & 1)
        usable = set(self.online or self._every) & set(allowed or self._every)
        return {c: k for c, k in self._every.items() if c in usable}

    @property
    def can_pin(self) -> bool:
        """Whether a program can be bound to cores: there is a taskset, and it reports a mask."""
        return self.affinity > 0 and bool(self.capacities)

    def strongest(self, threads: int, before: Snapshot | None = None) -> tuple[int, ...]:
        """Numbers of the cores to compute on: the greatest capacity first, then the idlest.

        Args:
            threads: How many, at least 1.
            before: An earlier snapshot, to see which cores were busy since. Without it, and among
                equals, the highest number: systems run their own programs on the first.
        Raises:
            InvalidArgument: Fewer cores can be used.
        """
        known = self.capacities
        if not 1 <= threads <= len(known):
            raise InvalidArgument(f"{threads} threads: {len(known)} cores can be used; 1 or more")
        since = before.busy if before else self.busy
        busy = {c: self.busy.get(c, 0) - since.get(c, 0) for c in known}
        # A difference of a tick or two has no meaning.
        ranked = sorted(known, key=lambda c: (-known[c], busy[c] // 3, -c))
        return tuple(sorted(ranked[:threads]))

    def core_class(self, cores: Iterable[int]) -> str:
        """The kind of these cores, independent of their numbers.

        "2 cores of capacity 1024", "1 of 2 cores of capacity 1024"; if all cores of the machine are
        equal, "one class of 8 cores".

        Raises:
            InvalidArgument: A number that no core has.
        """
        every, chosen = self._every, set(cores)
        if missing := chosen - set(every):
            raise InvalidArgument(f"no core {min(missing)}; there are {sorted(every)}")
        if len(set(every.values())) == 1:
            return f"one class of {_cores(len(every))}"
        parts = []
        for capacity in sorted({every[c] for c in chosen}, reverse=True):
            here = sum(every[c] == capacity for c in chosen)
            all_ = sum(k == capacity for k in every.values())
            share = "" if here == all_ else f"{here} of "
            parts.append(f"{share}{_cores(all_)} of capacity {capacity}")
        return ", ".join(parts)

    @property
    def _policy(self) -> Policy | None:
        """That of the strongest core that can be used."""
        if not self.capacities:
            return None
        (core,) = self.strongest(1)
        return next((p for p in self.policies if core in p.cores), None)

    @property
    def governor(self) -> str:
        """Frequency governor of the strongest core; "none" if there is none."""
        return (self._policy.governor if self._policy else "") or "none"

    # -- how it is --------------------------------------------------------------------------------

    @property
    def clock_mhz(self) -> float | None:
        """Clock of the strongest core, in MHz."""
        return self._policy.current_mhz if self._policy else None

    @property
    def temperature_c(self) -> float | None:
        """Of the hottest processor, in °C: by Android's service, else by the kernel's zones."""
        celsius = self.thermal.hottest_c if self.thermal else None
        return hottest_zone(self.zones) if celsius is None else celsius

    def telemetry(self) -> dict[str, Any]:
        """What may explain a doubtful measurement later, as `Device.telemetry`; what is known."""
        policy = self._policy
        limited = policy and policy.limit_mhz and policy.limit_mhz < (policy.greatest_mhz or 0)
        values = {
            "temperature_c": self.temperature_c,
            "thermal_status": self.thermal.throttling if self.thermal else None,
            "clock_mhz": self.clock_mhz,
            "clock_limit_mhz": policy.limit_mhz if policy and limited else None,
            "load": self.load[0] if self.load else None,
            "pressure": self.pressure,
            "online": len(self.online) or None,
            "cpu_quota": self.quota,
            "battery_percent": self.battery.level_percent if self.battery else None,
            "battery_c": self.battery.temperature_c if self.battery else None,
            "charging": self.battery.plugged if self.battery else None,
            "unread": list(self.unread) or None,
        }
        return {k: v for k, v in values.items() if v is not None}

    @property
    def summary(self) -> str:
        """One line on cores, governor, temperature and battery."""
        counts: dict[int, int] = {}
        for capacity in sorted(self._every.values(), reverse=True):
            counts[capacity] = counts.get(capacity, 0) + 1
        kinds = ", ".join(f"{n} of capacity {k}" for k, n in counts.items())
        parts = [_cores(len(self._every)) + (f" ({kinds})" if len(counts) > 1 else "")]
        if self.emulated:
            parts.append("emulated: its times do not count as measured")
        if self.quota is not None:
            parts.append(f"CPU quota {self.quota:.0%} of a core")
        if self.governor != "none":
            parts.append(f"governor {self.governor}")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.0f} °C")
        if self.battery:
            parts.append(f"battery {self.battery.level_percent:.0f} %, {self.battery.status}")
        return "; ".join(parts)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def parse_snapshot(text: str) -> Snapshot:
    """Read what `SNAPSHOT` printed. A part that cannot be read is named in `unread`.

    Raises:
        UnreadableOutput: It is cut off, or has not each part once and in order.
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
            unread.append(f"its {_UNKNOWN.get(name, name)} is unknown: {error}")
            return default

    uname = [plain(x) for x in sections["uname"]]
    services = any(sections[name] for name in ("getprop", "battery", "thermal"))
    android = services or any(x.endswith(("Android", "Toybox")) for x in uname)
    mac = any(x.startswith("Darwin ") for x in uname)
    return Snapshot(
        machine=uname[0] if uname else "",
        properties=read("getprop", parse_getprop, {}),
        battery=read("battery", parse_battery, None),
        thermal=read("thermal", parse_thermalservice, None),
        zones=read("zones", parse_zones, ()),
        reported=read("capacities", parse_capacities, {}),
        policies=read("cpufreq", parse_cpufreq, ()),
        busy=read("stat", parse_stat, {}),
        load=read("loadavg", parse_loadavg, None),
        cpuinfo=read("cpuinfo", parse_cpuinfo, ()),
        online=read("online", parse_cores, ()),
        allowed=read("allowed", parse_allowed, ()),
        quota=read("allowed", parse_quota, None),
        pressure=read("allowed", parse_pressure, None),
        affinity=read("taskset", parse_taskset, 0),
        system="android" if android else "darwin" if mac else "linux",
        unread=(*unread, *([_OF_A_MAC] if mac else [])),
    )
