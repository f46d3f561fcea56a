"""What a Linux kernel reports on processor and heat in /proc and /sys: text in, values out.

The same on phones, boards and computers. A text without a line is not an error: not every system
has these files, and not every user may read them.

Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-class-thermal,
Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .android_text import MOST_CORES
from .device_text import lines_of, plain, unreadable

__all__ = [
    "Policy",
    "Zone",
    "hottest_zone",
    "parse_allowed",
    "parse_capacities",
    "parse_cores",
    "parse_cpufreq",
    "parse_cpuinfo",
    "parse_loadavg",
    "parse_pressure",
    "parse_quota",
    "parse_stat",
    "parse_zones",
]

_MHZ_MOST = 20_000


@dataclass(frozen=True)
class Zone:
    """One thermal zone: its type ("cpu-0-0-usr", "mtktscpu", "battery", ...) and its °C."""

    type_name: str
    celsius: float


@dataclass(frozen=True)
class Policy:
    """One cpufreq policy: cores that share a clock.

    Args:
        name: "policy4".
        cores: Numbers of all its cores, offline ones too.
        current_mhz, limit_mhz, greatest_mhz: The clock now, the limit set for it now (lowered
            when hot), and the greatest that the hardware has, in MHz; None if unknown.
        governor: "schedutil", ...; "" if unknown.
    """

    name: str
    cores: tuple[int, ...]
    current_mhz: float | None
    limit_mhz: float | None
    greatest_mhz: float | None
    governor: str


def _one_line(text: str) -> str:
    return next(iter(lines_of(text)), "")


# -- heat -----------------------------------------------------------------------------------------


def parse_zones(text: str) -> tuple[Zone, ...]:
    """Lines `type temp` of /sys/class/thermal/thermal_zone*, those with a plausible temperature.

    Most kernels give m°C, some phones' °C or tenths: 1 to 150 is read as °C, 151 to 1000 as tenths
    (15.1 to 100 °C), 5000 to 150000 as m°C (5 to 150 °C). All else, as 0 or -274000, stands for a
    sensor that is absent or asleep, and is dropped.

    Raises:
        UnreadableOutput: A line that does not end in a whole number.
    """
    zones = []
    for line in lines_of(text):
        name, _, number = line.rpartition(" ")
        if not name.strip() or not re.fullmatch("-?[0-9]{1,12}", number):
            raise unreadable("thermal zones", "a type and a whole number", line)
        value = int(number)
        if 1 <= value <= 150:
            zones.append(Zone(plain(name), float(value)))
        elif 151 <= value <= 1000:
            zones.append(Zone(plain(name), value / 10))
        elif 5000 <= value <= 150_000:
            zones.append(Zone(plain(name), value / 1000))
    return tuple(zones)


# Vendors' names for zones of processors, and for those that heat up by themselves. Qualcomm's "soc"
# is
# the battery's state of charge.
_COMPUTES = re.compile(
    r"cpu|gpu|soc[-_]|apc?\b|npu|tpu|nsp|g3d|^(?:big|mid|little|tdie|tctl)$|skin|"
    r"pkg|package|core|cluster|k10temp|acpitz|x86",
    re.I,
)
_ELSE = re.compile(
    r"batt|charg|chg|^pm[a-z]?[0-9]|pmic|usb|modem|mdm|wlan|wifi|bcl|[vi]bat|^socd?$", re.I
)


def hottest_zone(zones: Iterable[Zone]) -> float | None:
    """Temperature of the hottest zone of a processor, by its type's name, in °C.

    If none has such a name, of all but batteries, chargers and radios; None if none is left.
    """
    able = [z for z in zones if not _ELSE.search(z.type_name)]
    named = [z for z in able if _COMPUTES.search(z.type_name)]
    return max((z.celsius for z in named or able), default=None)


# -- cores ----------------------------------------------------------------------------------------


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers of `0-3,6` or `0 1 2 3`, in order.

    Raises:
        UnreadableOutput: Anything else, or a number from 1024 on.
    """
    cores: set[int] = set()
    line = _one_line(text).strip()
    parts = re.split(r"[ ,\t]+", line) if len(line) <= 5 * MOST_CORES else [""]
    for part in parts:
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if match is None or int(match[2] or match[1]) >= MOST_CORES:
            raise unreadable("list of cores", "core numbers as 0-3,6", line)
        cores.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(cores))


def parse_allowed(text: str) -> tuple[int, ...]:
    """Core numbers of the line `Cpus_allowed_list: 0-3` of /proc/self/status; () without it.

    Raises:
        UnreadableOutput: As `parse_cores`.
    """
    lines = [x for x in lines_of(text) if not x.startswith("Cpu_quota:")]
    return parse_cores(lines[0].rpartition(":")[2]) if lines else ()


def parse_quota(text: str) -> float | None:
    """Processor time in cores, of the line `Cpu_quota: 50000 100000`, in µs a period; None for all.

    The two numbers are cpu.max of cgroup 2, or cpu.cfs_quota_us and cpu.cfs_period_us of cgroup 1.
    """
    match = re.search(r"^Cpu_quota: ([0-9]{1,12}) ([0-9]{1,12})\b", text, re.M)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def parse_pressure(text: str) -> float | None:
    """Share of ten seconds in which a program waited for a core, in %, of /proc/pressure/cpu.

    >>> parse_pressure("Pressure: some avg10=12.50 avg60=3.00 avg300=1.00 total=123")
    12.5
    """
    match = re.search(r"^Pressure: some avg10=([0-9]{1,3}(?:\.[0-9]{1,6})?)\b", text, re.M)
    return float(match[1]) if match else None


def parse_capacities(text: str) -> dict[int, int]:
    """Capacity of each core relative to the system's strongest (1024), from lines `0 1024`.

    Raises:
        UnreadableOutput: A line that is not two whole numbers.
    """
    capacities = {}
    for line in lines_of(text):
        match = re.fullmatch(r"([0-9]{1,4}) ([0-9]{1,6})", line)
        if match is None or int(match[1]) >= MOST_CORES:
            raise unreadable("core capacities", "a core and its capacity", line)
        capacities[int(match[1])] = int(match[2])
    return capacities


def parse_cpufreq(text: str) -> tuple[Policy, ...]:
    """Lines `policy4 4 5|CUR|MAX|HARDWARE_MAX|GOVERNOR`, clocks in kHz, empty where not readable.

    That is `related_cpus`, `scaling_cur_freq`, `scaling_max_freq`, `cpuinfo_max_freq` and
    `scaling_governor` of /sys/devices/system/cpu/cpufreq/policy*.

    Raises:
        UnreadableOutput: A line of another form.
    """
    policies = []
    for line in lines_of(text):
        name, _, rest = line.partition(" ")
        cells = [cell.strip() for cell in rest.split("|")]
        if not re.fullmatch("policy[0-9]{1,4}", name) or len(cells) != 5:
            raise unreadable("cpufreq", "policy0 CORES|CUR|MAX|HARDWARE_MAX|GOVERNOR", line)
        clocks = [
            int(cell) / 1000 if re.fullmatch("[0-9]{1,9}", cell) and int(cell) else None
            for cell in cells[1:4]
        ]
        if any(c is not None and c > _MHZ_MOST for c in clocks):
            raise unreadable("cpufreq", f"clocks in kHz, below {_MHZ_MOST:,} MHz", line)
        cores = parse_cores(cells[0]) if cells[0] else ()
        policies.append(Policy(name, cores, clocks[0], clocks[1], clocks[2], plain(cells[4])))
    return tuple(policies)


# ARM kernels print these once at the end: they are of the machine, not of the last core.
_OF_THE_MACHINE = ("Hardware", "Revision", "Serial", "Model")


def parse_cpuinfo(text: str) -> tuple[dict[str, str], ...]:
    """/proc/cpuinfo: one dictionary a core, and one of the whole machine.

    Names and values are made plain; lines without a colon are ignored.
    """
    groups: list[dict[str, str]] = [{}]
    for line in lines_of(text):
        name, mark, value = line.partition(":")
        key = plain(name, 40)
        if not mark:
            continue
        if key == "processor" or (key in _OF_THE_MACHINE and "processor" in groups[-1]):
            groups.append({})
        groups[-1].setdefault(key, plain(value, 4000))
    return tuple(group for group in groups if group)


def parse_stat(text: str) -> dict[int, int]:
    """Ticks since the start in which each core was busy, from /proc/stat: all but idle and iowait.

    Raises:
        UnreadableOutput: A core's line with anything but whole numbers.
    """
    busy = {}
    for line in lines_of(text):
        name, *ticks = line.split(" ")
        if not re.fullmatch("cpu[0-9]{1,4}", name):
            continue
        if len(ticks) < 4 or not all(re.fullmatch("[0-9]{1,20}", t) for t in ticks):
            raise unreadable("/proc/stat", "cpu0 and whole numbers", line)
        busy[int(name[3:])] = sum(int(t) for i, t in enumerate(ticks[:8]) if i not in (3, 4))
    return busy


# -- load -----------------------------------------------------------------------------------------


def parse_loadavg(text: str) -> tuple[float, float, float]:
    """Average number of running programs over 1, 5 and 15 minutes: `0.52 0.58 0.59 1/467 12345`.

    Raises:
        UnreadableOutput: Anything else.
    """
    match = re.match(r"([0-9]{1,6}\.[0-9]+) ([0-9]{1,6}\.[0-9]+) ([0-9]{1,6}\.[0-9]+)(?: |$)", text)
    if match is None:
        raise unreadable("/proc/loadavg", "three averages", _one_line(text))
    return float(match[1]), float(match[2]), float(match[3])
