"""The command init: what it asks, what it writes, and what it leaves alone."""

from __future__ import annotations

import io
import sys
import tomllib
from pathlib import Path

import pytest

from phonenas import devices
from phonenas.devices import DeviceState
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

cli_init = sys.modules["phonenas.cli.setup.init"]  # the package has a function of that name

PHONE = DeviceState("(1A2B3C)", "adb", "not in devices.toml", "Pixel 6", 0, "", "name it")
LOCKED = DeviceState("(9Z)", "adb", "unauthorized", "", 0, "", "allow this computer")


@pytest.fixture
def seen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """adb sees one phone, and one that did not allow this computer."""
    monkeypatch.setattr(devices, "listing", lambda: [PHONE, LOCKED])
    Path("benchmark_model").write_bytes(b"ELF")


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def written(name: str = "devices.toml") -> dict[str, dict[str, object]]:
    return tomllib.loads(Path(name).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("seen")
def test_a_phone_and_a_board_by_asking(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(
        monkeypatch,
        *("", "no such file", "benchmark_model", ""),  # the phone, its program, its name
        *("pi@raspberrypi.local", "pixel-6", "my pi", "tflite", "litert", ""),
    )
    code, out, err = run("init")
    assert code == 0, err
    assert "written to devices.toml: pixel-6, my pi" in out and "phonenas devices" in out
    assert "(9Z): unauthorized: allow this computer" in err
    assert "there is no file 'no such file'" in err and "pixel-6 is the name of another" in err
    assert "no such runtime. " in err and "Known: litert, onnxruntime" in err
    program = str(Path("benchmark_model").resolve())
    phone = {"transport": "adb", "address": "1A2B3C", "runtime": "benchmark_model"}
    board = {"transport": "ssh", "address": "pi@raspberrypi.local", "runtime": "litert"}
    assert written() == {"pixel-6": {**phone, "binary": program}, "my pi": board}


@pytest.mark.usefixtures("seen")
def test_without_questions(run: Run) -> None:
    words = ("init", "--yes", "--program", "benchmark_model", "--ssh", "a@lab", "--ssh", "b@lab")
    assert run.json(*words)["devices"] == ["pixel-6", "lab", "lab-2"]
    assert [table["address"] for table in written().values()] == ["1A2B3C", "a@lab", "b@lab"]
    code, _, err = run("init", "--yes", "--out", "other.toml")
    assert code == 2 and "1A2B3C is left out: a phone needs a benchmark program" in err
    assert "no device is to be written to other.toml" in err
    code, _, err = run("init", "--yes", "--program", "none")
    assert code == 2 and "there is no file 'none'" in err


def test_what_it_writes_passes_phonenas_devices(run: Run) -> None:
    run.json("init", "--yes", "--ssh", "nobody@127.0.0.1")
    rows = {r["name"]: r for r in run.json("devices")}
    assert set(rows) == {"local", "127"} and rows["127"]["kind"] == "ssh"


@pytest.mark.usefixtures("seen")
def test_a_file_that_is_there_keeps_what_it_holds(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = '# mine\n[old]\ntransport = "simulated"  # a comment\n'
    Path("devices.toml").write_text(own, encoding="utf-8")
    answer(monkeypatch, "no", "lab", "", "", "", "no")
    code, _, err = run("init")
    assert code == 1 and "devices.toml has 1 device. Add 1 more?" in err
    assert Path("devices.toml").read_text(encoding="utf-8") == own
    assert run.json("init", "--yes", "--ssh", "old")["devices"] == ["old-2"]
    assert Path("devices.toml").read_text(encoding="utf-8").startswith(own)
    assert [*written()] == ["old", "old-2"]
    Path("devices.toml").write_text("[bad", encoding="utf-8")
    code, _, err = run("init", "--yes", "--ssh", "lab")
    assert code == 2 and "devices.toml cannot be read" in err
    assert Path("devices.toml").read_text(encoding="utf-8") == "[bad"


@pytest.mark.usefixtures("seen")
def test_input_that_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    code, _, err = run("init")
    assert code == 2 and "the input ended before the answer. To be asked nothing, give --yes" in err
    answer(monkeypatch, "perhaps", "perhaps", "perhaps")
    code, _, err = run("init")
    assert code == 2 and "yes or no, got 'perhaps'" in err
    assert not Path("devices.toml").exists()


@pytest.mark.usefixtures("seen")
def test_input_that_ends_after_a_phone_keeps_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", "benchmark_model", "")
    code, out, err = run("init", "--out", "my devices.toml")
    assert code == 0, err
    assert [*written("my devices.toml")] == ["pixel-6"]
    assert "look:  PHONENAS_DEVICES='my devices.toml' phonenas devices" in out


def test_a_study_of_several_devices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = "pixel4/tflite/cpu-1large/float32"
    made = run.json("init", "study", "--yes", "--device", "fake", "--device", phone)
    assert written("study.toml")["device"] == ["fake", phone]
    assert [s.split()[1] for s in made["steps"]] == [
        *("profile", "fit", "search", "validate", "report")
    ]
    assert phone not in made["steps"][0] and f"--device {phone}" in made["steps"][2]
    text = Path("study.toml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    answer(monkeypatch, f" {phone},fake ,", "", "20")
    assert run("init", "study", "--out", "asked.toml")[0] == 0
    assert written("asked.toml")["device"] == [phone, "fake"]
    words = ("init", "study", "--yes", "--out", "bad.toml", "--device", "fake", "--device", "fak")
    code, out, err = run(*words)
    assert code == 2 and out == "" and "no device is called 'fak'" in err


@pytest.mark.parametrize(("space", "few"), [("mnasnet", 200), ("accel-nasbench", None)])
def test_a_study_measures_few_operators_of_a_large_space(
    run: Run, space: str, few: int | None
) -> None:
    run.json("init", "study", "--yes", "--device", "fake", "--space", space)
    profile = written("study.toml")["profile"]
    assert profile.get("operators") == few and profile["networks"] == 20


def test_a_study_of_any_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "my  #1.toml"
    made = run.json("init", "study", "--yes", "--device", "fake", "--out", name)
    assert written(name)["out"] == "runs/my  #1" and made["file"] == name
    assert run.json("run", name, "--commands") == made["steps"]
    # What cannot be done is not written over what is there.
    before = Path(name).read_bytes()
    broken = cli_init._STUDY.replace("evaluations = 8000", "evaluations = 0")
    monkeypatch.setattr(cli_init, "_STUDY", broken)
    answer(monkeypatch, "yes", "", "", "12")
    code, out, err = run("init", "study", "--device", "fake", "--out", name)
    assert code == 2 and out == "" and f"{name}: search: " in err
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("init", "studdy"), "init writes devices or a study, not 'studdy'. Did you mean 'study'"),
        (("init", "study", "--ssh", "x"), "--ssh is of devices, not of a study"),
        (("init", "--device", "x"), "--device is of a study: phonenas init study"),
        (("init", "--yes", "--ssh", "-oProxyCommand=x"), "it must be a serial or host"),
        (("init", "study", "--yes", "--device", "fak"), "no device is called 'fak'"),
        (("init", "study", "--yes", "--device", "fake", "--space", "x"), "no search space is call"),
        (("init", "study", "--yes", "--device", "fake", "--target", "x9"), "x9"),
        (("init", "study", "--yes", "--device", "fake", "--target", "0"), "target"),
        (("init", "study", "--yes", "--device", "fake", "--target", "inf"), "target"),
    ],
)
def test_what_cannot_be_written_is_refused(run: Run, words: tuple[str, ...], says: str) -> None:
    code, out, err = run(*words)
    assert code == 2 and out == "" and says in err, err
    assert not Path("devices.toml").exists() and not Path("study.toml").exists()


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (("--device", "fake"), ["profile", "fit", "search", "validate", "report"]),
        (
            ("--device", "fake", "--target", "8.5"),
            ["profile", "fit", "search", "validate", "report"],
        ),
        (("--device", "pixel4/tflite/cpu-1large/float32"), ["search", "report"]),
    ],
)
def test_a_study_is_written_that_can_be_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], steps: list[str]
) -> None:
    made = run.json("init", "study", "--yes", *given)
    assert made["file"] == "study.toml"
    assert [s.split()[1] for s in made["steps"]] == steps
    assert run.json("run", "--commands") == made["steps"]
    text = Path("study.toml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100 and "{" not in text
    code, _, err = run("init", "study", "--yes", *given)
    assert code == 1 and "study.toml is there already, and is left" in err
    answer(monkeypatch, "yes", "", "", "12")
    assert run("init", "study", *given)[0] == 0
    assert tomllib.loads(Path("study.toml").read_text())["search"]["target"] == 12.0
