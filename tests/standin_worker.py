"""Answers as the measuring worker does, at once and with made-up times; for tests alone.

A test gives it as the device's `python`. The JSON file beside it, as long as it is there, says
what to do amiss:

    "at": "hello", "run" (each model but the sentinel) or "done"
    "with": what is put into the answer; null takes a part out
    "text": what is printed instead of the answer; "before": what is printed before it
    "endless": how many bytes are printed without the end of a line, then nothing more
    "once": whether the file goes when that is done
"""

import json
import sys
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def answer(at, document):
    amiss = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if at != amiss.get("at"):
        say(json.dumps(document))
        return
    if amiss.get("once"):
        FILE.unlink()
    if "endless" in amiss:
        sys.stdout.write("x" * amiss["endless"])
        sys.stdout.flush()
        sys.stdin.read()
        sys.exit(0)
    if "before" in amiss:
        say(amiss["before"])
    if "text" in amiss:
        say(amiss["text"])
        return
    changed = {**document, **amiss.get("with", {})}
    say(json.dumps({k: v for k, v in changed.items() if v is not None}))


provider = ""
for line in sys.stdin:
    if not line.strip():
        continue
    request = json.loads(line)
    if request["op"] == "hello":
        answer("hello", {"runtime": "standin", "version": "1", "sha256": "0" * 64})
        provider = request["provider"]
    elif request["op"] == "leave":
        answer("leave", {"done": True})
    elif request["op"] == "startup":
        size = Path(request["model"]).stat().st_size
        answer(
            "startup", {"load_ms": 3.0, "first_ms": 2.0, "peak_bytes": 10**7, "file_bytes": size}
        )
    elif request["op"] == "run":
        for index, (path, runs) in enumerate(zip(request["models"], request["runs"], strict=True)):
            size = Path(path).stat().st_size
            answer(
                "sentinel" if path == request["sentinel"] else "run",
                {
                    "index": index,
                    "samples_ms": [1 + size / 1e6 + n / 1e3 for n in range(runs)],
                    "sentinel_ms": [0.5] * runs,
                    "preempted": 0,
                    "first_ms": 2.0,
                    "clock_mhz": 0.0,
                    "busy_s": 0.01,
                    "provider": provider,
                },
            )
        answer("done", {"done": True})
