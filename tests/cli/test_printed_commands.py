"""Commands that messages print: they act on the store, device and model of the user's command."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fakes import FakeDevice

from phonenas import devices, latency_model, space
from phonenas.cli import app
from phonenas.cli.output import completed
from phonenas.data.measurement import Conditions
from phonenas.search.accuracy.supernet.folder import check
from phonenas.space.errors import SettingsChanged, UncoveredOperator
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture
DB, MODEL = "my lab's.db", Path("my model.json")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("phonenas fit", ["fit", "--db", DB, "--device", "sim", "--out", "my model.json"]),
        (
            "phonenas profile --device sim --network 'a b'",
            ["profile", "--db", DB, "--device", "sim", "--network", "a b"],
        ),
        (
            "phonenas profile --device DEVICE --kernels 400",
            ["profile", "--db", DB, "--device", "sim", "--kernels", "400"],
        ),
        (
            "phonenas profile --networks 20",
            ["profile", "--db", DB, "--device", "sim", "--networks", "20"],
        ),
        (
            "phonenas fit --db other.db --device=x --out o.json",
            ["fit", "--db", "other.db", "--device=x", "--out", "o.json"],
        ),
        ("phonenas validate r --device x", ["validate", "--db", DB, "r", "--device", "x"]),
        ("phonenas promote r", ["promote", "--db", DB, "r"]),
        ("phonenas fit-accuracy t.csv", ["fit-accuracy", "t.csv"]),
        ("phonenas supernet --space SPACE", ["supernet", "--space", "SPACE"]),
    ],
)
def test_a_command_gains_what_it_lacks(printed: str, expected: list[str]) -> None:
    text = completed(f"It isn't there. Do this:  {printed}", DB, "sim", MODEL)
    head, command = text.split(":  ")
    assert head == "It isn't there. Do this"
    assert sorted(shlex.split(command)) == sorted(["phonenas", *expected])
    assert shlex.split(command)[1] == expected[0]
    assert completed(text, DB, "sim", MODEL) == text


def test_texts_that_stay_as_they_are() -> None:
    prose = "As `phonenas profile` says, the same phonenas search command goes on."
    assert completed(prose, DB, "sim", MODEL) == prose
    assert completed("Fit:  phonenas fit") == "Fit:  phonenas fit"
    assert completed("Fit:  phonenas fit", device="local") == "Fit:  phonenas fit"


def test_two_commands_and_the_sentence_behind_them() -> None:
    text = "Do:  phonenas profile --device x && phonenas fit --device x\nIt's one day's work."
    assert completed(text, "a.db") == (
        "Do:  phonenas profile --db a.db --device x && phonenas fit --db a.db --device x\n"
        "It's one day's work."
    )
    assert completed("Do:  phonenas fit, if it isn't done", "a.db") == (
        "Do:  phonenas fit --db a.db, if it isn't done"
    )


def test_a_password_is_not_printed() -> None:
    text = completed("Fit:  phonenas fit", "postgresql://me:secret@host/x")
    assert "secret" not in text and "postgresql://me" in text


def test_every_command_with_a_store_is_completed() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        stored = any("--db" in p.opts for p in command.params)
        assert ("--db" in completed(f"Do:  phonenas {name}", "a.db")) == stored, name


def printed_in(error: str) -> list[str]:
    return shlex.split(error.strip().rpartition(":  ")[2])


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_fit_on_too_few_networks_names_the_profile_of_their_space(run: Run) -> None:
    few = ("--space", "mnasnet", "--resolution", "32", "--operators", "60")
    words = ("profile", "--device", "fake", "--db", DB, *few, "--networks", "2")
    assert run(*words, "--quick", "--quiet")[0] == 0
    code, _, err = run("fit", "--device", "fake", "--db", DB)
    assert code == 1 and "2 whole network(s) do not calibrate a latency model" in err
    printed = printed_in(err)
    assert printed[:2] == ["phonenas", "profile"] and printed[-2:] == ["--networks", "20"]
    assert " ".join(few) in " ".join(printed)  # and not every operator of the default space


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_errors_of_the_lower_floors_print_whole_commands(run: Run, tmp_path: Path) -> None:
    db = ("--device", "fake", "--db", DB)
    alone = ("--network", "mnasnet-small", "--resolution", "32", "--quick", "--quiet")
    assert run("profile", *db, *alone)[0] == 0
    code, _, err = run("fit", *db)
    assert code == 1 and "1 whole network(s) do not calibrate a latency model" in err
    assert printed_in(err) == [
        *("phonenas", "profile", "--db", DB, "--device", "fake", "--networks", "20")
    ]
    (tmp_path / "my lab's.fake.model.json").write_text("{}")
    code, _, err = run("predict", "mnasnet-a1", *db)
    assert code == 1 and "is not a latency model" in err
    assert printed_in(err) == ["phonenas", "fit", "--db", DB, "--device", "fake"]
    Path("own.json").write_text("{}")
    code, _, err = run("predict", "mnasnet-a1", *db, "--model", "own.json")
    assert printed_in(err) == [
        *("phonenas", "fit", "--db", DB, "--device", "fake", "--out", "own.json")
    ]


def test_a_check_with_other_threads(
    run: Run, fitted: latency_model.LatencyModel, profiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Threaded(FakeDevice):
        threads = 2

        @property
        def conditions(self) -> Conditions:
            return replace(super().conditions, threads=self.threads, cores=f"{self.threads} cores")

    monkeypatch.setattr(devices, "connect", lambda name, **settings: Threaded())
    fitted.save("own.json")
    words = ("check", "--device", "fake", "--db", str(profiled), "--model", "own.json")
    code, _, err = run(*words, "--threads", "2")
    assert code == 2 and "the model of fake is for 1 thread, and --threads 2 was given" in err
    db = ["--db", str(profiled)]
    assert printed_in(err) == [
        *("phonenas", "profile", "--device", "fake", "--space", "accel-nasbench"),
        *("--resolution", "32", "--operators", "55", "--threads", "2", *db),  # as many as before
    ]
    own = err.split(":  ")[1].partition(" ;")[0]
    assert shlex.split(own) == ["phonenas", "check", "--device", "fake", "--threads", "1", *db]


@pytest.fixture
def own_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> space.SearchSpace:
    """A space of a file whose path has a blank; named with the digest of what the file says."""
    monkeypatch.chdir(tmp_path)
    Path("my space.toml").write_text(
        "resolution = 64\n[stem]\nfilters = 16\nstride = 1\n[head]\nfilters = 320\n"
        '[[blocks]]\nop = "conv"\nfilters = [16, 24]\nkernel = [3, 7]\n'
    )
    return space.get("my space.toml")


def test_a_space_of_a_file_is_printed_as_the_option_takes_it(
    own_space: space.SearchSpace, fitted: latency_model.LatencyModel
) -> None:
    model = replace(fitted, times=replace(fitted.times, regressor=None))
    with pytest.raises(UncoveredOperator) as error:
        model.on(own_space)
    words = printed_in(str(error.value))
    assert words[:4] == ["phonenas", "profile", "--device", "fake"]
    assert words[4] == "--space" and words[6:] == ["--resolution", "64"]
    assert space.get(words[5], 64).operators() == own_space.operators()


def test_a_supernet_of_other_images(own_space: space.SearchSpace) -> None:
    settings = {
        "space": "x",
        "images": "a",
        "classes": ["x"],
        "resolution_px": 64,
        "space_digest": "other",
    }
    for digest in ("b", "a"):
        images: Any = SimpleNamespace(digest=digest, source="x.npz", classes=("x",))
        with pytest.raises(SettingsChanged) as error:
            check(Path("net"), settings, own_space, images)
        words = printed_in(str(error.value))
        assert words[:3] == ["phonenas", "supernet", "--space"]
        assert space.get(words[3]).name == own_space.name
        assert words[4:] == ["--data", "DIR", "--out", "FOLDER"]
