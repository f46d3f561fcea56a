"""Errors: what their messages tell a user to install."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from phonenas.space.errors import install


@pytest.mark.parametrize("extra", ["cluster", "litert", "postgres", "torch"])
def test_an_extra_is_installed_by_the_packages_that_pyproject_lists(extra: str) -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]
    wanted = [re.split(r"[><=]", line)[0] for line in extras[extra]]
    if "phonenas[torch]" in wanted:
        wanted.remove("phonenas[torch]")
        wanted += [re.split(r"[><=]", line)[0] for line in extras["torch"]]
    command = shlex.split(install(extra))
    assert command[:2] == ["pip", "install"]
    assert sorted(command[2:]) == sorted(wanted)
