"""Examine an installed phonenas from a folder outside any checkout; started by tools/wheel.py.

    python wheel_check.py FOLDER

Its metadata and data files, every module, and one small job on a simulated phone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import phonenas

# The modules that cannot be imported without an extra, and the packages of it that they import.
# Every other module must be importable from the wheel alone.
NEED_AN_EXTRA = {
    "phonenas.search.training.average": "torch",
    "phonenas.search.training.optimizer": "torch",
    "phonenas.search.training.step": "torch",
    "phonenas.search.training.finetuning.fake_quantisation": "torch",
    "phonenas.search.training.finetuning.plain_steps": "torch",
    "phonenas.testing": "test",
}
EXTRAS = {
    "litert": ("ai_edge_litert",),
    "torch": ("torch", "safetensors", "PIL"),
    "cluster": ("ray",),
    "postgres": ("psycopg",),
    "test": ("pytest", "hypothesis"),
}
JOB = (
    "devices",
    "profile --device try --space mnasnet --operators 40 --networks 12 --quick",
    "fit --device try",
    "predict mobilenet-v2 --device try",
    "search --device try --target 26 --evaluations 400 --seed 0 --out run",
    "validate run --device try --top 2",
    "report run",
)


def extra_of(module: str) -> str | None:
    """The extra listed for a module, by its own name or its package's."""
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 1, -1)]
    return next((NEED_AN_EXTRA[name] for name in names if name in NEED_AN_EXTRA), None)


def examine_metadata() -> None:
    told = importlib.metadata.metadata("phonenas")
    assert told["License-Expression"] == "Apache-2.0", "the wheel does not name its licence"
    assert told.get_all("License-File") == ["LICENSE"]
    assert {*EXTRAS, "docs", "dev"} == set(told.get_all("Provides-Extra") or ())
    assert "Programming Language :: Python :: 3.11" in (told.get_all("Classifier") or ())
    inside = importlib.resources.files("phonenas")
    assert inside.joinpath("py.typed").is_file(), "py.typed is not in the wheel"
    assert inside.joinpath("data/tables/accuracy_surrogate.json").is_file()
    assert inside.joinpath("data/tables/imagenet_top1.json").is_file()
    assert "site-packages" in str(inside), f"{inside} is not an installed package"


def examine_modules() -> None:
    failed = []
    names = ["phonenas"]
    walk = pkgutil.walk_packages(phonenas.__path__, "phonenas.", onerror=lambda name: None)
    names += [m.name for m in walk if not m.name.endswith("__main__")]
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            extra = extra_of(name)
            packages = EXTRAS.get(extra or "", ())
            # Our own errors name the packages to install; a bare import names what it lacks.
            named = any(package in f"{error.name} {error}" for package in packages)
            if extra is None or not named:
                failed.append(f"{name}: {type(error).__name__}: {error}")
            else:
                print(f"  {name} needs the extra {extra}: {error}")
    assert not failed, "modules cannot be imported from the wheel:\n" + "\n".join(failed)
    print(f"  {len(names)} modules")


def examine_a_job(folder: Path) -> None:
    (folder / "devices.toml").write_text('[try]\ntransport = "simulated"\naddress = "1"\n')
    for line in JOB:
        command = [sys.executable, "-m", "phonenas", *line.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        said = f"phonenas {line}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0 and "Traceback" not in said, said
    validation = json.loads((folder / "run" / "validation.json").read_text())
    assert len(validation["networks"]) == 2
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "SIMULATED" in page, "the report does not say that its times are simulated"
    print(f"  {len(JOB)} commands: a simulated phone was profiled, searched for and validated on")


def main() -> None:
    folder = Path(sys.argv[1])
    examine_metadata()
    # What could not be imported from an installed package once; its own line tells it at once.
    subprocess.run([sys.executable, "-c", "import phonenas.search.training"], check=True)
    examine_modules()
    examine_a_job(folder)


if __name__ == "__main__":
    main()
