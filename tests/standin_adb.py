"""Speaks as the adb program does where no real daemon will: refusals, states, lost bytes.

For tests alone. It stands first in PATH, and beside it lie: `devices`, what `adb devices -l`
prints; and a folder for each serial, with `bin` (programs that only this device has), `tmp` (where
its files go), `log` (what was asked of it, a JSON list a line) and, for as long as they are there,
`push` (what it says instead of taking files), `cut` (how many bytes of each file arrive) and
`lost` (it answers nothing, and ends with 0, as adb does).
"""

import json
import os
import shutil
import sys
from pathlib import Path

here = Path(__file__).parent
words = sys.argv[1:]
if words[:1] == ["devices"]:
    sys.stdout.write((here / "devices").read_text(encoding="utf-8"))
    sys.exit(0)
if words == ["start-server"]:
    sys.exit(0)
if words[:1] != ["-s"]:
    sys.exit(f"adb: unknown command {words[0]}")
serial, command, *rest = words[1:]
device = here / serial
if not device.is_dir():
    sys.exit(f"adb: device '{serial}' not found")
with (device / "log").open("a", encoding="utf-8") as log:
    log.write(json.dumps([command, *rest]) + "\n")
if (device / "lost").exists():
    sys.exit(0)
if command == "push":
    *files, folder = rest
    if (device / "push").exists():
        sys.stderr.write((device / "push").read_text(encoding="utf-8"))
        sys.exit(1)
    for name in files:
        arrived = shutil.copy(name, folder)
        if (device / "cut").exists():
            os.truncate(arrived, int((device / "cut").read_text(encoding="utf-8")))
    print(f"{len(files)} files pushed.")
elif command == "shell":
    environment = {"PATH": f"{device / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(device / "tmp")}
    os.execve("/bin/sh", ["sh", "-c", rest[-1]], environment)
