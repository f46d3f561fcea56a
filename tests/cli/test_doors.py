"""What users and files give to the command line: names, options, and commands to copy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
from fakes import FakeDevice

from phonenas import devices
from phonenas.cli import app
from phonenas.cli.output import command_line, completed, table
from phonenas.cli.progress import subjects_by_reason
from phonenas.data import MeasurementStore
from phonenas.devices.device import Reading
from phonenas.latency_model import model_path
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import legible, plain_name
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture
ODD = (
    "a b",
    "it's",
    '"q"',
    "$HOME",
    "`x`",
    "a;b",
    "ä",
    "x:y",
    "(1)",
    "*",
    "a\tb".replace("\t", " "),
)
NONE = (
    *("", " ", "-x", "--quick", ".", "..", ".hidden", "a/b", "x/../../OUTSIDE", "/etc/x", "a\\b"),
    *("a\nb", "a\x1b[31m", "a\u2028b", "a\u202eb", " a", "a ", "x" * 101, "ä" * 101, "😀" * 60),
)


def commands() -> list[tuple[list[str], click.Command]]:
    """Every command with its words."""
    group = typer.main.get_command(app)
    every: list[tuple[list[str], click.Command]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            every.append(([name], command))
        else:
            every += [([name, own], c) for own, c in inner.items()]
    return every


def test_there_are_commands() -> None:
    words = [" ".join(w) for w, _ in commands()]
    assert len(words) == 31 and {"profile", "benchmark search", "export-network"} <= set(words)


@pytest.mark.parametrize(
    ("words", "command"), commands(), ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_an_option_with_one_value_is_given_once(words: list[str], command: click.Command) -> None:
    tried = 0
    for option in command.params:
        if option.param_type_name != "option" or option.multiple:  # type: ignore[attr-defined]
            continue
        name = max(option.opts, key=len)
        if name == "--help":
            continue
        flag = option.is_flag  # type: ignore[attr-defined]
        twice = [name, name] if flag else [name, "1", name, "1"]
        for mixed in [twice] if flag else [twice, [f"{name}=1", name, "2"]]:
            with pytest.raises(Exception, match="it takes one value and is given twice") as caught:
                command.make_context(" ".join(words), list(mixed))
            assert caught.value.exit_code == 2  # type: ignore[attr-defined]
            assert name in caught.value.format_message()  # type: ignore[attr-defined]
        tried += 1
    assert tried >= 3  # --json, --verbose and --quiet at least


def test_the_same_at_the_command_line(run: Run) -> None:
    code, out, err = run("search", "--evaluations", "5", "--out", "r", "--evaluations=6")
    assert code == 2 and out == ""
    assert "'--evaluations': it takes one value and is given twice" in err


@pytest.mark.parametrize("name", NONE)
def test_a_name_that_could_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be a name: it ") as caught:
        plain_name(name, "--device")
    assert str(caught.value).startswith("--device: ") and str(caught.value).isprintable()
    with pytest.raises(InvalidArgument):
        model_path("x.db", name)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_a_name(name: str) -> None:
    assert plain_name(name, "--device") == name
    path = model_path("runs/x.db", name)
    assert path.parent == Path("runs") and path.name == f"x.{name}.model.json"


@pytest.mark.fault(
    "A device is called 'x/../../OUTSIDE', '-x', or something with a line break.",
    "`cannot be a name: it …`; `holds a line break or another character that does not print`",
    "Choose another name.",
)
@pytest.mark.parametrize("name", ["x/../../OUTSIDE", "..", "-x", "a\nb"])
def test_no_door_takes_such_a_name(run: Run, tmp_path: Path, name: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    with MeasurementStore(here / "s.db"):
        pass
    csv = tmp_path / "t.csv"
    csv.write_text("kind,subject,latency_ms\nnetwork,mnasnet-b1,30.25\n")
    db = ("--db", str(here / "s.db"))
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("import", "csv", str(csv), f"--device={name}"),
        ("fit", f"--device={name}"),
        ("fit", f"--like={name}"),
        ("check", f"--device={name}"),
        ("predict", "mnasnet-a1", f"--device={name}"),
        ("predict", "x.onnx", f"--device={name}"),
        ("search", "--out", str(tmp_path / "r"), f"--device={name}"),
        ("validate", "r", f"--device={name}"),
        ("profile", f"--device={name}"),
        ("profile", f"--like={name}"),
        ("export", "x.csv", f"--device={name}"),
    ):
        code, out, err = run(*words, *db)
        assert code == 2 and out == "", (words, err)
        assert "cannot be a name" in err or "line break" in err, (words, err)
        assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.fault(
    "An objective is called latency:x/../../OUTSIDE.",
    "`cannot be a name: it holds a slash`",
    "Choose another name.",
)
def test_an_objective_names_no_file_elsewhere(run: Run, tmp_path: Path) -> None:
    from phonenas.search.objectives import named

    def model_of(device: str) -> None:
        model_path(str(tmp_path / "s.db"), device)

    with pytest.raises(InvalidArgument, match="cannot be a name"):
        named("latency:x/../../OUTSIDE", model_of)  # type: ignore[arg-type]


@pytest.mark.fault(
    "A path or another value of an option holds a line break or a control character.",
    "`holds a line break or another character that does not print`",
    "Choose another name.",
)
@pytest.mark.parametrize("value", ["a\nb", "a\x1bb", "a\rb"])
def test_a_value_that_cannot_be_printed_is_refused(run: Run, value: str) -> None:
    for words in (
        ("fit", "--db", value),
        ("report", value),
        ("validate", value),
        ("export", f"{value}.csv"),
        ("search", "--out", value),
        ("show", value),
        ("profile", "--network", value),
    ):
        code, out, err = run(*words)
        assert code == 2 and out == "", (words, err)
        assert "does not print" in err and len(err.splitlines()) == 1, (words, err)


@pytest.mark.parametrize("name", ODD)
def test_a_command_to_copy_is_one_word_for_the_shell(name: str) -> None:
    line = command_line("profile", "--device", name, db=f"my {name}.db")
    assert shlex.split(line) == ["phonenas", "profile", "--device", name, "--db", f"my {name}.db"]
    text = completed("Fit:  phonenas fit", f"{name}.db", name, Path(f"{name}.json"))
    assert shlex.split(text.partition(":  ")[2]) == [
        *("phonenas", "fit", "--db", f"{name}.db", "--device", name, "--out", f"{name}.json")
    ]


@pytest.mark.parametrize("name", ODD)
def test_errors_print_commands_that_a_shell_takes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    odd = type("Odd", (FakeDevice,), {"name": name})
    monkeypatch.setattr(devices, "connect", lambda *a, **k: odd())
    monkeypatch.chdir(tmp_path)
    for words, expected in (
        (("report", name), ["phonenas", "search", "--device", "DEVICE", "--out", name]),
        (
            ("validate", name, "--device", name, "--db", f"{name}.db"),
            ["phonenas", "search", "--db", f"{name}.db", "--device", name, "--out", name],
        ),
        (
            ("predict", "mnasnet-a1", "--device", name, "--db", f"{name}.db"),
            ["phonenas", "fit", "--device", name, "--db", f"{name}.db"],
        ),
    ):
        _, _, err = run(*words)
        printed = err.strip().rpartition(":  ")[2].rpartition(" && ")[2]
        assert shlex.split(printed) == expected, err
    with MeasurementStore(f"{name}.db"):
        pass
    code, _, err = run("export", "x.csv", "--device", name, "--db", f"{name}.db")
    assert code == 1
    assert shlex.split(err.strip().rpartition(":  ")[2]) == [
        *("phonenas", "profile", "--db", f"{name}.db"),
        *("--device", name, "--space", "mnasnet"),
    ]


def test_a_terminal_obeys_no_text_of_a_file() -> None:
    shown = legible(table(["model"], [["\x1b]0;x\x07\x1b[31mred"]]))
    assert shown.replace("\n", "").isprintable() and "\\x1b[31mred" in shown


class NoModel(FakeDevice):
    """It cannot run the larger files: whole networks."""

    def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
        for job, reading in zip(jobs, super().run_ms(jobs, **more), strict=True):
            whole = job.model.stat().st_size > 1_000_000
            yield Reading(error="out of memory") if whole else reading


@pytest.mark.fault(
    "A network, operator or kernel that a profile was asked for by name gives no number.",
    "`given up: …`; `1 of the subjects named gave no number (…: 3 times: out of memory)`; "
    "exit code 1",
    "The reason says it; with --again it is measured again.",
)
@pytest.mark.usefixtures("fast")
def test_a_subject_asked_for_by_name_that_gave_no_number(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "connect", lambda *a, **k: NoModel())
    words = ("profile", "--device", "fake", "--quick", "--quiet", "--network", "mnasnet-small")
    code, out, err = run(*words)
    assert code == 1
    assert "given up: " in out and "subjects measured" in out  # its operators are kept
    assert "UnstableDevice: 1 of the subjects named gave no number (" in err
    assert "on fake: 3 times: out of memory" in err and "--again" in err


@pytest.mark.fault(
    "Other programs take the core from every run of a network that was asked for by name.",
    "`1 of the subjects named gave no number`; `Close other programs, then give the same command "
    "again`; exit code 1",
    "As it says.",
)
@pytest.mark.usefixtures("fast")
def test_what_other_programs_disturbed_is_measured_by_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crowded(FakeDevice):
        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            for job, reading in zip(jobs, super().run_ms(jobs, **more), strict=True):
                whole = job.model.stat().st_size > 1_000_000
                lost = Reading(preempted=30, error="no undisturbed run among 30")
                yield lost if whole else reading

    monkeypatch.setattr(devices, "connect", lambda *a, **k: Crowded())
    words = ("profile", "--device", "fake", "--quick", "--quiet", "--network", "mnasnet-small")
    code, out, err = run(*words)
    assert code == 1
    assert "given up: 2 subjects (3 times: no undisturbed run among 30): mnasnet-small, head" in out
    assert "the same command measures again what other programs disturbed: close them" in out
    assert "mnasnet-small on fake: 3 times: no undisturbed run among 30" in err
    assert "r1_k3" not in out + err  # the network is called as the user called it
    assert "Close other programs, then give the same command again." in err
    assert "--again" not in err
    monkeypatch.setattr(devices, "connect", lambda *a, **k: FakeDevice())
    code, out, err = run(*words)
    assert code == 0 and "2 subjects measured" in out and "given up" not in out, err
    assert re.search(r"^● [0-9.]+ ms ±[0-9.]+%  mnasnet-small$", out, re.M) and "r1_k3" not in out


def test_subjects_are_listed_by_the_reason_that_they_share() -> None:
    long = "r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24 r3_k3_s22_e6_i24_o32 r4_k3_s22_e6_i32_o64"
    assert len(long) > 60
    listed = {long: "loud", "b": "out of memory", "c": "loud", "d": "loud", "e": "loud"}
    first = "r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24 r3_k3_s22_e6_i24_…"
    assert subjects_by_reason("given up", listed, {"c": "mnasnet-a1"}, 5) == [
        f"given up: 4 subjects (loud): {first}, mnasnet-a1, d, and 1 more, which --json lists",
        "given up: b: out of memory",
    ]
    assert subjects_by_reason("given up", listed, {}, 1)[1:] == [
        "given up: 1 more, which --json lists"
    ]
    assert subjects_by_reason("given up", {}, {}, 1) == []


@pytest.mark.fault(
    "One of several devices fails while all are profiled.",
    "`other: not done: no such provider`; `1 of 2 devices were not measured to the end. "
    "What was measured is kept`",
    "As its reason says; the same command goes on.",
)
@pytest.mark.usefixtures("fast")
def test_one_device_that_fails_costs_the_others_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(FakeDevice):
        name = "other"

        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            raise InvalidArgument("no such provider")
            yield

    monkeypatch.setattr(
        devices, "connect", lambda name, **k: Other() if name == "other" else FakeDevice()
    )
    words = ("profile", "--device", "other", "--device", "fake", "--network", "mnasnet-small")
    code, out, err = run(*words, "--resolution", "32", "--quick", "--quiet")
    assert code == 2, err
    assert "other: not done: no such provider" in out and "fake: " in out
    assert "subjects measured" in out and "1 of 2 devices were not measured" in err
