"""Build the sdist and the wheel, and use the wheel alone, outside the checkout.

    python tools/wheel.py [--keep FOLDER] [--python VERSION ...]

Both pass `twine check` (their description can be shown) and `check-wheel-contents`.
For each Python of 3.11 to 3.13 that is installed here: an empty virtual environment in a temporary
folder, the wheel with the versions of constraints.txt, then tools/wheel_check.py there. On the
oldest Python once more with the lowest versions that pyproject.toml admits.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
LIMIT_S = 900  # of one step: nothing here takes a quarter of an hour


def run(command: list[str], cwd: Path) -> None:
    """Run one step; what it prints is shown where it fails.

    Raises:
        SystemExit: It failed.
    """
    # Neither the checkout nor a user's own packages may stand in for the wheel.
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PHONENAS_DB")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | {"PYTHONNOUSERSITE": "1"},
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\nexit status {done.returncode}")
    if command[-1].endswith("work"):
        print(done.stdout, end="", flush=True)


def interpreter(version: str) -> str | None:
    """A program that is this version of Python; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    inside = sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}")))
    for program in (shutil.which(f"python{version}"), *inside, sys.executable):
        if program is None:
            continue
        # A shim of pyenv is in PATH for versions that it then refuses to start.
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
        if asked.returncode == 0 and asked.stdout.startswith(f"Python {version}."):
            return program
    return None


def lowest(pyproject: Path) -> str:
    """Constraints that take each dependency at its lower bound, one a line."""
    listed = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = [re.fullmatch(r"([\w.-]+)>=([\w.]+)", entry) for entry in listed]
    if not all(bounds):
        sys.exit(f"a dependency without a plain lower bound: {listed}")
    return "".join(f"{b[1]}=={b[2]}\n" for b in bounds if b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="Also copy the sdist and the wheel there.")
    parser.add_argument("--python", action="append", help="This version alone; repeatable.")
    given = parser.parse_args()
    keep, versions = given.keep, tuple(given.python or VERSIONS)
    with tempfile.TemporaryDirectory(prefix="phonenas-wheel-") as folder:
        place = Path(folder)
        # The wheel is built from the sdist, so that the sdist is proven whole too.
        run([sys.executable, "-m", "build", "--outdir", str(place / "dist"), str(ROOT)], place)
        (wheel,) = (place / "dist").glob("*.whl")
        (sdist,) = (place / "dist").glob("*.tar.gz")
        run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], place)
        run([sys.executable, "-m", "check_wheel_contents", str(wheel)], place)
        print(f"built {wheel.name} ({wheel.stat().st_size:,} bytes)", flush=True)
        if keep is not None:
            shutil.copytree(place / "dist", keep, dirs_exist_ok=True)
        low = place / "lowest.txt"
        low.write_text(lowest(ROOT / "pyproject.toml"))
        tried = 0
        found = [(v, p) for v in versions if (p := interpreter(v))]
        jobs = [(v, p, ROOT / "constraints.txt", "tested versions") for v, p in found]
        jobs += [(v, p, low, "lowest versions") for v, p in found[:1]]
        for version, program, constraints, words in jobs:
            started = time.monotonic()
            empty = place / f"{version} {words}"
            (empty / "work").mkdir(parents=True)
            run([program, "-m", "venv", str(empty / "venv")], place)
            python = str(empty / "venv" / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
            run([*pip, "--disable-pip-version-check", "-c", str(constraints), str(wheel)], empty)
            run(
                [python, str(ROOT / "tools" / "wheel_check.py"), str(empty / "work")],
                empty / "work",
            )
            tried += 1
            took = time.monotonic() - started
            print(f"Python {version}, {words}: passed in {took:.0f} s", flush=True)
            shutil.rmtree(empty)
        for version in versions:
            if version not in dict(found):
                print(f"Python {version}: not examined, there is no python{version} here")
        if not tried:
            sys.exit(f"no Python of {', '.join(versions)} to examine the wheel with")


if __name__ == "__main__":
    main()
