"""The commands of docs/*.md, run in the order printed, with simulated phones in the devices' place.

The README's commands have a test of their own. Some commands are not run here, for a reason that
stands in `NOT_RUN`; tests/test_house.py parses those too.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from phonenas import cli

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (
    *("latency.md", "phones.md", "search.md", "detection.md", "accuracy.md", "cluster.md"),
    "networks.md",
)
# The former's need a package and a file that the page prints: tests/test_example_package.py.
APART = {"extending.md", "first_steps.md"}  # the latter's run in tests/cli/test_readme.py
# A part of a command, and what it needs that is not to be had here.
NOT_RUN = {
    "pip install": "a package registry",
    "phonenas trace": "a device whose runtime has a profiler",
    "torchrun": "several GPUs",
    "--data": "images, and hours of training",
    "--ray": "a Ray cluster",
    "TABLE": "a table that others published",
    "accel_nasbench.csv": "the benchmark that the surrogate is fitted on",
    "results.csv": "a user's own accuracies",
    "surrogate:mine.json": "a user's own accuracies",
    "--network model.onnx": "a device whose runtime reads ONNX",
    "--network ssdlite:": "a device whose runtime reads ONNX",
    "--quantised": "networks that were trained on images",
    "pixel1": "a table that others published",
    "note10": "a table that others published",
    "pixel4-large": "a table that others published",
}
# `local` is the real computer, whose measuring takes minutes: a simulated phone stands for it.
FEW = {"--operators", "--like", "--measurements"}
PHONES = {"here": 1, "pixel6": 1, "termux": 3, "pi": 4, "mine": 5, "new": 6}


def commands_of(page: str) -> list[str]:
    """The command lines of a page's shell blocks, comments taken off."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = []
    for block in re.findall(r"^[ \d.]*```sh\n(.*?)^ *```", text, re.S | re.M):
        lines += [line.split("  #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def reason(line: str) -> str | None:
    """Why a command is not run; None for one that is."""
    return next((why for part, why in NOT_RUN.items() if part in line), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two measured phones with their models, an ONNX file and a run."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "devices.toml").write_text(
        "".join(
            f'[{name}]\ntransport = "simulated"\naddress = "{seed}"\n'
            for name, seed in PHONES.items()
        )
    )
    for line in (
        "phonenas profile --device local --device pixel6 --space mnasnet --networks 24",
        "phonenas fit --device local",
        "phonenas fit --device pixel6",
        "phonenas export-network mnasnet-small --format onnx --out model.onnx",
        "phonenas search --device local --target 8 --evaluations 1000 --out runs/mine",
    ):
        status, said = execute(line, folder)
        assert status == 0, f"{line}\n{said}"
    return folder


def execute(line: str, folder: Path) -> tuple[int, str]:
    """Exit status and output of a command, with phones in the devices' place."""
    words = ["here" if word == "local" else word for word in shlex.split(line)[1:]]
    if words[0] == "profile" and "--space" in words and not FEW & {*words}:
        words += ["--operators", "220"]  # enough for a source device; all take a minute each
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["phonenas", *words])
        patch.delenv("PHONENAS_DB", raising=False)
        output = folder / "output.txt"
        with output.open("w", encoding="utf-8") as out:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", out)
            try:
                cli.main()
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return status, output.read_text(encoding="utf-8")


def test_every_page_with_commands_is_listed() -> None:
    assert {p.name for p in DOCS.glob("*.md") if commands_of(p.name)} == {*PAGES, *APART}


def test_what_is_not_run_is_still_documented() -> None:
    lines = [line for page in PAGES for line in commands_of(page)]
    for page in (DOCS.parent / "README.md", DOCS / "first_steps.md"):
        lines += page.read_text(encoding="utf-8").splitlines()
    unused = {part for part in NOT_RUN if not any(part in line for line in lines)}
    assert unused == set()
    assert sum(reason(line) is None for page in PAGES for line in commands_of(page)) > 25


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [p for p in PAGES if any(not reason(c) for c in commands_of(p))])
def test_the_commands_of_a_page_run_in_the_order_printed(page: str, folder: Path) -> None:
    for line in commands_of(page):
        if reason(line) is None and line.startswith("phonenas "):
            status, said = execute(line, folder)
            assert status == 0, f"{line}\n{said}"
            assert "Traceback" not in said
