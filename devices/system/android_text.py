"""What Android's and Linux's own tools print: text in, values with units out, nothing else.

A line that starts as the tool prints it and continues otherwise is an error; values that stand for
"no sensor" (0.0, -99.9, NaN, -3.4028235E38) are dropped. Names are made plain.

Source: AOSP's dumpsys (BatteryService, ThermalManagerService), getprop, toybox's taskset, adb's
`list_transports`; android.hardware.thermal's TemperatureType; Linux's Documentation/ABI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from phonenas.space.errors import InvalidArgument

from .device_text import NUMBER, lines_of, plain, unreadable

__all__ = [
    "AdbDevice",
    "Battery",
    "Temperature",
    "Thermal",
    "mask",
    "parse_battery",
    "parse_devices",
    "parse_getprop",
    "parse_taskset",
    "parse_thermalservice",
    "plain",
]

_WHOLE = r"-?[0-9]{1,9}"
MOST_CORES = 1024  # more than any phone or board has; bounds what a list of cores may claim


# -- getprop --------------------------------------------------------------------------------------


def parse_getprop(text: str) -> dict[str, str]:
    """System properties, from lines `[ro.product.model]: [Pixel 6]`; a value may span lines.

    Raises:
        UnreadableOutput: There is none, or a value does not end.
    """
    properties: dict[str, str] = {}
    name, value = "", [""]
    for line in lines_of(text):
        start = re.match(r"\[([^\]]{1,200})\]: \[", line)
        if name and start:
            break
        if start:
            name, value = start[1], [line[start.end() :]]
        elif name:
            value.append(line)
        else:
            continue  # for example a linker's warning
        if line.endswith("]"):
            properties[name] = "\n".join(value)[:-1]
            name = ""
    if name:
        raise unreadable("getprop", "an end of this property's value", f"[{name}]: [{value[0]}")
    if not properties:
        raise unreadable("getprop", "properties as [name]: [value]", next(iter(lines_of(text)), ""))
    return properties


# -- dumpsys battery ------------------------------------------------------------------------------

_STATUS = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}


@dataclass(frozen=True)
class Battery:
    """The battery.

    Args:
        level_percent: Charge, 0 to 100.
        status: "charging", "discharging", "not charging", "full" or "unknown".
        temperature_c: In °C, to 0.1; None without a sensor (0 or beyond -40 to 120 °C).
        plugged: Whether it is connected to power.
    """

    level_percent: float
    status: str
    temperature_c: float | None
    plugged: bool


def parse_battery(text: str) -> Battery:
    """Read `dumpsys battery`: its first state, not the history that some phones append.

    Raises:
        UnreadableOutput: No level, or a value that is not as the service prints it.
    """
    numbers: dict[str, int] = {}
    plugged = False
    for line in lines_of(text):
        name, _, value = (x.strip() for x in line.partition(":"))
        if name.startswith("["):  # [EventLogBuffer]
            break
        if name in ("level", "scale", "status", "temperature") and name not in numbers:
            if not re.fullmatch(_WHOLE, value):
                raise unreadable("dumpsys battery", f"a whole number as {name}", line)
            numbers[name] = int(value)
        elif name.endswith(" powered"):
            if value not in ("true", "false"):
                raise unreadable("dumpsys battery", "true or false", line)
            plugged = plugged or value == "true"
    # The scale follows the level: a text that is cut off in the middle of the level has none.
    scale, level = numbers.get("scale", 0), numbers.get("level", -1)
    if not 0 <= level <= scale or scale == 0:
        first = next(iter(lines_of(text)), "")
        line = f"level: {level}, scale: {scale}" if "level" in numbers else first
        raise unreadable("dumpsys battery", "a level from 0 to its scale", line)
    tenths = numbers.get("temperature", 0)
    celsius = tenths / 10 if tenths and -400 <= tenths <= 1200 else None
    status = _STATUS.get(numbers.get("status", 1), "unknown")
    return Battery(100 * level / scale, status, celsius, plugged)


# -- dumpsys thermalservice -----------------------------------------------------------------------

# Android's TemperatureType, from 0 on.
_TYPES = re.findall(
    r"\w+",
    "CPU GPU BATTERY SKIN USB_PORT POWER_AMPLIFIER BCL_VOLTAGE BCL_CURRENT BCL_PERCENTAGE NPU TPU "
    "DISPLAY MODEM SOC WIFI CAMERA FLASHLIGHT SPEAKER AMBIENT POGO",
)
_NO_TEMPERATURE = ("BCL_VOLTAGE", "BCL_CURRENT", "BCL_PERCENTAGE")  # mV, mA, % in the same field
_COMPUTES = ("CPU", "GPU", "NPU", "TPU", "SOC", "SKIN")
_TEMPERATURE = re.compile(
    rf"Temperature\{{mValue=({NUMBER}), mType=({_WHOLE}), mName=(.{{0,100}}?)"
    rf"(?:, mStatus=([0-6]))?\}}"
)
LEAST_C, GREATEST_C = -30.0, 150.0


class Temperature(NamedTuple):
    """One sensor: its name, its kind ("CPU", "SKIN", ...), °C, how far it throttles (0 to 6)."""

    name: str
    type_name: str
    celsius: float
    status: int


@dataclass(frozen=True)
class Thermal:
    """Android's view of its heat.

    Args:
        status: Throttling of the whole device: 0 none, 1 light, 2 moderate, 3 severe, 4 critical,
            5 emergency, 6 shutdown.
        temperatures: Of the sensors with a plausible value, without those of voltage, current and
            charge, which the service also lists.
    """

    status: int
    temperatures: tuple[Temperature, ...]

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature of processors and of the skin, by which they throttle, in °C.

        Battery, charger, modem, amplifier and sensors of unknown kind heat up by themselves.
        """
        return max((t.celsius for t in self.temperatures if t.type_name in _COMPUTES), default=None)

    @property
    def throttling(self) -> int:
        """The status, or that of the skin if it is higher: some phones throttle by it alone."""
        return max([self.status, *(t.status for t in self.temperatures if t.type_name == "SKIN")])


def parse_thermalservice(text: str) -> Thermal:
    """Read `dumpsys thermalservice`: the sensors' current values, else the cached ones.

    The cache is of the last change of status: it can hold 48.5 °C while the skin has 34.4.

    Raises:
        UnreadableOutput: No status, a sensor's line that is not as the service prints it, or a
            text that ends before the sensors' current temperatures do.
    """
    status: int | None = None
    whole = False
    sections: dict[str, list[Temperature]] = {"Current": [], "Cached": []}
    section: list[Temperature] = []
    for line in map(str.strip, lines_of(text)):
        if line.startswith("Thermal Status:") and status is None:
            word = line.partition(":")[2].strip()
            if not re.fullmatch("[0-6]", word):
                raise unreadable("dumpsys thermalservice", "a status from 0 to 6", line)
            status = int(word)
        elif line.startswith(("Current temperatures", "Cached temperatures")):
            section = sections[line.partition(" ")[0]]
        elif line.startswith("Temperature{"):
            match = _TEMPERATURE.fullmatch(line)
            if match is None:
                raise unreadable("dumpsys thermalservice", "Temperature{mValue=…, mType=…}", line)
            celsius, kind = float(match[1]), int(match[2])
            name = _TYPES[kind] if 0 <= kind < len(_TYPES) else "UNKNOWN"
            if name not in _NO_TEMPERATURE and celsius and LEAST_C <= celsius <= GREATEST_C:
                section.append(Temperature(plain(match[3]), name, celsius, int(match[4] or 0)))
        else:
            section = []
        # What follows the current temperatures; without a hardware service there are none.
        whole = whole or line.startswith(("Current cooling devices", "HAL Ready: false"))
    if status is None:
        first = next(iter(lines_of(text)), "")
        raise unreadable("dumpsys thermalservice", "a line 'Thermal Status: 0'", first)
    if not whole:
        last = lines_of(text)[-1]
        raise unreadable("dumpsys thermalservice", "a whole text; it is cut off after this", last)
    return Thermal(status, tuple(sections["Current"] or sections["Cached"]))


# -- taskset --------------------------------------------------------------------------------------


def parse_taskset(text: str) -> int:
    """The mask of cores in `pid 123's current affinity mask: f0` (toybox, util-linux, busybox).

    If a new mask is printed as well, that one.

    Raises:
        UnreadableOutput: There is none, or it is 0.
    """
    lines = [x for x in lines_of(text) if "affinity mask" in x]
    match = re.search(r"affinity mask: (?:0x)?([0-9a-fA-F,]{1,320})$", lines[-1] if lines else "")
    cores = int(match[1].replace(",", "") or "0", 16) if match else 0
    if not cores:
        line = lines[-1] if lines else next(iter(lines_of(text)), "")
        raise unreadable("taskset", "pid 1's current affinity mask: ff", line)
    return cores


def mask(cores: Iterable[int]) -> str:
    """The hexadecimal mask that Android's taskset takes.

    >>> mask([4, 5, 6, 7])
    'f0'

    Raises:
        InvalidArgument: No core, or one below 0 or from 1024 on.
    """
    numbers = set(cores)
    if not numbers or min(numbers) < 0 or max(numbers) >= MOST_CORES:
        raise InvalidArgument(f"cores {sorted(numbers)}: at least one, each 0 to {MOST_CORES - 1}")
    return f"{sum(1 << n for n in numbers):x}"


# -- adb devices -l -------------------------------------------------------------------------------

_UNLOCK = "Unlock it and accept the question about USB debugging"
_ADVICE = {
    "device": "",
    "offline": "It does not answer: unplug it and plug it in again, or  adb reconnect offline.",
    "unauthorized": f"{_UNLOCK}; if none appears, revoke USB debugging authorisations in its "
    "developer options and plug it in again.",
    "authorizing": f"It waits for a decision on this computer's key. {_UNLOCK}, and try again.",
    "connecting": "adb is still reaching it: wait a few seconds and try again.",
    "no permissions": "This computer's user may not open the USB device: install Android's udev "
    "rules (Debian: android-sdk-platform-tools-common), plug it in again,  adb kill-server.",
    "recovery": "It is in recovery: restart it into Android with  adb reboot.",
    "rescue": "It is in rescue mode: restart it into Android with  adb reboot.",
    "sideload": "It waits for an update to be sideloaded: restart it into Android.",
    "bootloader": "It is in its bootloader: restart it into Android with  fastboot reboot.",
    "host": "This is an adb server, not a device: use another serial.",
    "detached": "adb has released it: attach it with  adb attach.",
    "unknown": "adb does not know its state: unplug it and plug it in again.",
}
_LISTED = re.compile(
    rf"(?P<serial>\(no serial "
    rf"number\)|\S.{{0,200}}?)\s{{1,100}}(?P<state>{'|'.join(_ADVICE)})(?P<rest>\s.*|)"
)
_OTHER = re.compile(r"(?P<serial>\S{1,200})\s{1,100}(?P<state>\S{1,100})(?P<rest>\s.*|)")


@dataclass(frozen=True)
class AdbDevice:
    """One line of `adb devices -l`.

    Args:
        serial: As adb takes it after -s: `R58M123ABC`, `192.168.1.5:5555`, `emulator-5554`,
            `adb-R5CX-AbC._adb-tls-connect._tcp`.
        state: As adb prints it; only "device" can be used.
        product, model, device: Its names, "" if unknown. adb prints "_" for blanks; `model` has
            blanks again.
        transport_id: Number of the connection; None from an old adb.
        advice: A sentence on what to do; "" for "device".
    """

    serial: str
    state: str
    product: str
    model: str
    device: str
    transport_id: int | None
    advice: str

    @property
    def over_air(self) -> bool:
        """Whether it is reached over the network: HOST:PORT, or Android's wireless debugging."""
        return ":" in self.serial or "._adb" in self.serial


def parse_devices(text: str) -> tuple[AdbDevice, ...]:
    """Read `adb devices -l`, in its order.

    Raises:
        UnreadableOutput: The list's heading is not there, or a line names no state.
    """
    lines = lines_of(text)
    heads = [i for i, x in enumerate(lines) if x.startswith("List of devices")]
    if not heads:
        raise unreadable(
            "adb devices",
            "'List of devices attached'",
            next(iter(lines), ""),
            "Does  adb start-server  work?",
        )
    devices = []
    for line in lines[heads[0] + 1 :]:
        # A server that was just started prints lines of its own.
        if line.startswith(("* ", "adb server ", "List of devices")):
            continue
        match = _LISTED.fullmatch(line) or _OTHER.fullmatch(line)
        if match is None:
            raise unreadable("adb devices", "a serial number and a state", line)
        names = dict(
            re.findall(r"\s(product|model|device|transport_id):(\S{1,200})", match["rest"])
        )
        number = names.get("transport_id", "")
        state = plain(match["state"])
        devices.append(
            AdbDevice(
                serial=plain(match["serial"]),
                state=state,
                product=plain(names.get("product", "")),
                model=plain(names.get("model", "")).replace("_", " "),
                device=plain(names.get("device", "")),
                transport_id=int(number) if re.fullmatch("[0-9]{1,18}", number) else None,
                advice=_ADVICE.get(
                    state, f"Nothing can be run in the state {state!r}: restart it."
                ),
            )
        )
    return tuple(devices)
