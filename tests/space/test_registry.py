"""Search spaces by name: our own, another package's, and `module:Name`."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from phonenas import space
from phonenas.space import Operator
from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.registry import Registry
from phonenas.space.spaces import space_of


def test_names_are_ours_and_sorted() -> None:
    ours = ["accel-nasbench", "mnasnet", "mnasnet-flat", "nasbench-macro", "proxylessnas"]
    assert [n for n in space.names() if n in ours] == ours
    for name in ours:
        assert space.get(name).name == name
    assert space.get("nasbench-macro").resolution_px == 32
    assert space.get("mnasnet", 160).resolution_px == 160


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(
        UnknownName, match="no search space is called 'mnasnets'. Did you mean 'mnas"
    ):
        space.get("mnasnets")


def test_a_class_by_module_and_name_reopens_by_its_name() -> None:
    mine = space.get("phonenas.space:ProxylessNAS", 192)
    assert mine.name == "phonenas.space:ProxylessNAS"
    assert space.get(mine.name, 192).operators() == space.ProxylessNAS(192).operators()


def test_what_is_no_space() -> None:
    with pytest.raises(UnknownName, match="phonenas.space:Nothing, which cannot be imported"):
        space.get("phonenas.space:Nothing")
    with pytest.raises(UnknownName, match="no_such_module"):
        space.get("no_such_module:Space")
    with pytest.raises(
        InvalidArgument, match="gives dict, which is not a phonenas.space.SearchSpace"
    ):
        space.get("builtins:dict")


def test_entry_points_are_names_and_ours_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[SimpleNamespace]:
        assert group == "phonenas.things"
        return [
            SimpleNamespace(name="theirs", value="phonenas.space.zoo:names"),
            SimpleNamespace(name="ours", value="phonenas.space.zoo:network"),
        ]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    things = Registry[object]("thing", "phonenas.things", {"ours": "phonenas.space.zoo:find"})
    assert things.names() == ["ours", "theirs"]
    assert things.get("theirs") is space.zoo.names
    assert things.get("ours") is space.zoo.find
    assert things.help() == "ours, theirs, or MODULE:NAME of your own"


def test_an_entry_point_whose_name_is_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = [
        SimpleNamespace(name="ours", value="package_a:Ours"),
        SimpleNamespace(name="theirs", value="phonenas.space.zoo:names"),
        SimpleNamespace(name="theirs", value="phonenas.space.zoo:names"),  # installed twice
        SimpleNamespace(name="theirs", value="package_b:Theirs"),
    ]
    caplog.set_level(logging.WARNING, logger="phonenas")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    things = Registry[object]("thing", "phonenas.things", {"ours": "phonenas.space.zoo:find"})
    assert things.names() == ["ours", "theirs"] and things.get("theirs") is space.zoo.names
    assert caplog.messages == [
        "the thing 'ours' of another package, package_a:Ours, is ignored: the name stands for "
        "phonenas.space.zoo:find",
        "the thing 'theirs' of another package, package_b:Theirs, is ignored: the name stands for "
        "phonenas.space.zoo:names",
    ]


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise RuntimeError('broken')", "broken"),
        ("def f(:", "SyntaxError"),
        ("exit(7)", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    source: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"broken_{len(source)}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownName, match=f"which cannot be imported: .*{word}"):
        space.get(f"broken_{len(source)}:X")
    with pytest.raises(UnknownName, match="cannot be imported"):
        space.get("..:X")


def test_what_makes_no_space_is_named() -> None:
    with pytest.raises(InvalidArgument, match="makes no search space"):
        space.get("string:digits")
    with pytest.raises(InvalidArgument, match="makes no search space"):
        space.get("json:dumps")


@pytest.mark.slow
def test_the_space_that_operators_are_of() -> None:
    every = space.get("mnasnet", 192).operators()
    found = space_of(every)
    assert found is not None and (found.name, found.resolution_px) == ("mnasnet", 192)
    own = space_of(space.NASBenchMacro().operators())
    assert own is not None and (own.name, own.resolution_px) == ("nasbench-macro", 32)
    # A half is enough, and less is not; the resolution is that of the largest map.
    stem, rest = every[0], every[1:40]
    foreign = [Operator("conv", 7, n, 96, kernel=3) for n in range(1, 42)]
    assert stem.in_px == 192
    mostly = space_of([stem, *rest, *foreign[:40]])
    assert mostly is not None and mostly.name == "mnasnet"
    assert space_of([stem, *rest, *foreign]) is None
    assert space_of([]) is None
