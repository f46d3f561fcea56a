"""What a battery gives while a benchmark program runs: its power, by Linux' power supply class.

Source: Documentation/ABI/testing/sysfs-class-power of the Linux kernel: `current_now` in µA,
`voltage_now` in µV, `power_now` in µW; what a battery gives may have either sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

__all__ = ["POWERED", "power_uw"]

#: Runs a program with its text in a file, and prints that, a marker, and a line for each battery
#: ten times a second: "type status power current voltage", "-" for what it does not tell; a line
#: "." ends each time.
POWERED = """
marker=$1 output=$2; shift 2
tell() { text=$(cat "$1" 2>/dev/null) || text=; set -- $text; printf '%s ' "${1:--}"; }
"$@" >"$output" 2>&1 </dev/null & program=$!
readings=$output.power
: >"$readings"
while kill -0 $program 2>/dev/null; do
  for supply in /sys/class/power_supply/*; do
    for name in type status power_now current_now voltage_now; do tell "$supply/$name"; done
    echo
  done >>"$readings"
  echo . >>"$readings"
  sleep 0.1
done
wait $program; code=$?
cat "$output"; echo; echo "$marker"; cat "$readings"; rm -f "$readings"
exit $code
"""
_LINE = re.compile(r"Battery Discharging (-?\d{1,18}|-) (-?\d{1,18}|-) (-?\d{1,18}|-) ?")


def power_uw(text: str) -> float | None:
    """Mean power that the batteries gave in the second half of a run, in µW, > 0.

    In its first half a gauge still tells of what was before. None where no battery was discharging
    all of that time, or none tells its power.

    Args:
        text: As `POWERED` prints it behind its marker.
    """
    times = [t.splitlines() for t in re.split(r"^\.$", text, flags=re.M)[:-1]]
    powers = [_of_batteries(lines) for lines in times[len(times) // 2 :]]
    known = [p for p in powers if p]
    return fmean(known) if known and len(known) == len(powers) else None


def _of_batteries(lines: Sequence[str]) -> float:
    """Sum over the batteries that are discharging, in µW; 0 where none tells it."""
    total = 0.0
    for match in filter(None, map(_LINE.fullmatch, lines)):
        power, current, voltage = (0 if n == "-" else abs(int(n)) for n in match.groups())
        total += power or current * voltage / 1e6
    return total
