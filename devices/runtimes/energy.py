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
#: ten times a second: "type status scope power current voltage", "-" for what it does not tell; a
#: line "." ends each time.
POWERED = """
marker=$1 output=$2; shift 2
tell() { text=$(cat "$1" 2>/dev/null) || text=; set -- $text; printf '%s ' "${1:--}"; }
"$@" >"$output" 2>&1 </dev/null & program=$!
readings=$output.power
: >"$readings"
while kill -0 $program 2>/dev/null; do
  for supply in /sys/class/power_supply/*; do
    for name in type status scope power_now current_now voltage_now; do tell "$supply/$name"; done
    echo
  done >>"$readings"
  echo . >>"$readings"
  sleep 0.1
done
wait $program; code=$?
cat "$output"; echo; echo "$marker"; cat "$readings"; rm -f "$readings"
exit $code
"""
# The battery of a mouse is of the scope "Device".
_LINE = re.compile(
    r"Battery Discharging (?!Device )\S+ (-?\d{1,18}|-) (-?\d{1,18}|-) (-?\d{1,18}|-) ?"
)
_LEAST_UW, _MOST_UW = 5e4, 1e9  # 50 mW to 1 kW: some tell their current in mA


def power_uw(text: str) -> float | None:
    """Mean power that the batteries gave in the second half of a run, in µW, > 0.

    In its first half a gauge still tells of what was before. None where no battery was discharging
    all of that time, one does not tell its power, or the power is none that a device takes.

    Args:
        text: As `POWERED` prints it behind its marker.
    """
    times = [t.splitlines() for t in re.split(r"^\.$", text, flags=re.M)[:-1]]
    powers = [_of_batteries(lines) for lines in times[len(times) // 2 :]]
    whole = bool(powers) and all(_LEAST_UW <= p <= _MOST_UW for p in powers)
    return fmean(powers) if whole else None


def _of_batteries(lines: Sequence[str]) -> float:
    """Sum over the batteries that are discharging, in µW; 0 where none is, or one does not tell."""
    total = 0.0
    for match in filter(None, map(_LINE.fullmatch, lines)):
        power, current, voltage = (0 if n == "-" else abs(int(n)) for n in match.groups())
        if not (own := power or current * voltage / 1e6):
            return 0.0
        total += own
    return total
