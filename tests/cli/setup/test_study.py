"""The command run: a study file's steps are commands, each done once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from patience import PATIENCE_S, wait_for

from phonenas import cli, search
from phonenas.cli.setup import run as run_module
from phonenas.data.files import lock_folder
from phonenas.space.errors import Incomplete, NotEnoughData
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

ROOT = Path(__file__).parents[3]
SPACE = (
    'resolution = 32\n[stem]\nfilters = 8\n[[blocks]]\nop = "mbconv"\nexpansion = [3, 6]\n'
    "kernel = [3, 5]\nfilters = [8, 16]\nlayers = [1, 2]\nstride = 2\n"
)
STUDY = """\
out = "all"
device = "fake"
space = "mine.toml"
[profile]
networks = 12
[fit]
[search]
target = [250, 300.5]
evaluations = 16
accuracy = "surrogate"
[validate]
top = 1
[report]
"""
MODEL = "all/phonenas.fake.model.json"
STEPS = [
    "phonenas profile --db all/phonenas.db --device fake --space mine.toml --networks 12",
    f"phonenas fit --db all/phonenas.db --device fake --out {MODEL}",
    f"phonenas search --db all/phonenas.db --device fake --space mine.toml --model {MODEL} "
    "--target 250 --evaluations 16 --accuracy surrogate --strategy nsga2 --seed 0 "
    "--out all/nsga2-250-seed0",
    "phonenas validate all/nsga2-250-seed0 --db all/phonenas.db --device fake "
    f"--model {MODEL} --top 1",
    "phonenas report all/nsga2-250-seed0",
    f"phonenas search --db all/phonenas.db --device fake --space mine.toml --model {MODEL} "
    "--target 300.5 --evaluations 16 --accuracy surrogate --strategy nsga2 --seed 0 "
    "--out all/nsga2-300.5-seed0",
    "phonenas validate all/nsga2-300.5-seed0 --db all/phonenas.db --device fake "
    f"--model {MODEL} --top 1",
    "phonenas report all/nsga2-300.5-seed0",
    "phonenas report all/nsga2-250-seed0 all/nsga2-300.5-seed0 --out all/comparison.html",
]


@pytest.fixture
def study(run: Run) -> Path:
    Path("mine.toml").write_text(SPACE, encoding="utf-8")
    path = Path("study.toml")
    path.write_text(STUDY, encoding="utf-8")
    return path


def words_of(line: str) -> list[str]:
    return sorted(shlex.split(line))


@pytest.mark.usefixtures("study")
def test_each_step_is_a_command(run: Run) -> None:
    assert [words_of(s) for s in run.json("run", "--commands")] == [words_of(s) for s in STEPS]
    assert not Path("all").exists()
    code, out, _ = run("run", "study.toml", "--commands", "--out", "my other")
    assert code == 0 and "--db 'my other/phonenas.db'" in out and " all/" not in out
    assert out.splitlines()[0] == "mkdir -p 'my other'"


def test_the_demo_is_a_study(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands are those of `make demo`, apart from the places of its files."""
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ndemo:")[1].split("\ntest:")[0]
    lines = re.findall(r"^\t@?\$\(BIN\)/(phonenas .*)$", recipe, re.M)
    found = run.json("run", str(ROOT / "docs/demo.toml"), "--commands")
    profile, searched, validated, report, fit = lines

    def plain(line: str) -> list[str]:
        line = re.sub(r" --(db|out|model) \S+", "", line.replace("$(RUN)", "RUN"))
        return words_of(line.replace("runs/study/nsga2-mobilenet-v2-seed0", "RUN"))

    in_order = [profile, fit, searched, validated, report]
    assert [plain(a) for a in found] == [plain(b) for b in in_order]


@pytest.mark.slow
@pytest.mark.usefixtures("fast", "study")
def test_what_is_done_is_not_done_again(run: Run) -> None:
    done = run.json("run", "--quiet")
    assert [s["before"] for s in done["steps"]] == [False] * 9
    results = [s["result"] for s in done["steps"]]
    assert results[0]["measured"] > 12 and results[1]["device"] == "fake"
    assert all(Path(s["made"]).is_file() for s in done["steps"])
    fronts = [search.load(f"all/nsga2-{t}-seed0").front.to_frame() for t in ("250", "300.5")]

    again = run.json("run")
    assert [s["before"] for s in again["steps"]] == [True] * 9
    assert [s["at"] for s in again["steps"]] == [s["at"] for s in done["steps"]]
    code, out, _ = run("run")
    assert code == 0 and out.count("# done before: phonenas ") == 9

    # The same commands by hand, in another place, give the same fronts.
    Path("by-hand").mkdir()
    for line in [*STEPS[:2], STEPS[2], STEPS[5]]:
        code, _, err = run(*shlex.split(line.replace("all/", "by-hand/"))[1:])
        assert code == 0, err
    for target, front in zip(("250", "300.5"), fronts, strict=True):
        assert search.load(f"by-hand/nsga2-{target}-seed0").front.to_frame().equals(front)

    # Its pages are named at the end: one for each run, and the one that compares them.
    opened = [line for line in out.splitlines() if line.startswith("open in a browser:  ")]
    pages = [Path(line.split()[-1]) for line in opened]
    assert len(pages) == 3 and all(page.suffix == ".html" and page.is_file() for page in pages)

    # Commands find the study's model beside its store; the one that is printed is a whole command.
    (printed,) = [line for line in out.splitlines() if line.startswith("predict with its model:")]
    predicted = run.json(*shlex.split(printed)[5:])
    network = "all/nsga2-250-seed0:0"
    assert run.json("predict", network, "--device", "fake", "--db", "all/phonenas.db") == predicted

    # A step whose keys changed is done again, with what rests on it, and nothing else is.
    Path("study.toml").write_text(STUDY.replace("top = 1", "top = 2"), encoding="utf-8")
    before = [s["before"] for s in run.json("run")["steps"]]
    assert before == [True, True, True, False, False, True, False, False, False]
    Path("all/nsga2-250-seed0/report.html").unlink()
    before = [s["before"] for s in run.json("run")["steps"]]
    assert before == [True, True, True, True, False, True, True, True, False]

    # A changed model is not that of the runs: they are left, and the study says what to do.
    Path("study.toml").write_text(STUDY.replace("= 12", "= 14"), encoding="utf-8")
    code, _, err = run("run")
    assert code == 2 and "step 3 of 9, search nsga2-250-seed0: " in err
    assert "move that folder away, or give the study another --out" in err
    assert len(search.load("all/nsga2-250-seed0").front) == len(fronts[0])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("networks = 12", "netwroks = 12", "profile.netwroks: unknown key. Did you mean 'network"),
        ("[fit]", "[fitt]", "fitt: unknown key. Did you mean 'fit'"),
        ("out = ", "outt = ", "outt: unknown key. Did you mean 'out'"),
        ("top = 1", "out = 'x'", "validate.out: is of the whole study: write it above"),
        ("top = 1", "device = 'x'", "validate.device: is of the whole study: write it above"),
        ("top = 1", "top = 'many'", "validate.top: "),
        ("top = 1", "top = [1, 2]", "validate.top: is [1, 2]; it must be a number or a text"),
        ("top = 1", "again = 1", "validate.again: is 1; it must be true or false"),
        ("top = 1", "top = true", "validate.top: is True; it must be a number or a text"),
        ('out = "all"', "out = 7", "out: is 7; it must be a text"),
        ('"fake"', '"fak"', "device: no device is called 'fak'"),
        ('"fake"', '"pixel4/tflite/cpu-1large/float32"', "profile: pixel4/tflite/cpu-1large/"),
        ('"fake"', "[7]", "device: is [7]; it must be a text, or a list of texts"),
        ('"fake"', "[]", "device: is []; it must be a text, or a list of texts"),
        ('"fake"', '["fake", "fake"]', "device: each device once; given twice: fake"),
        ("mine.toml", "yours.toml", "space: there is no search space file yours.toml"),
        ("mine.toml", "study.toml", "space: study.toml: "),
        ("mine.toml", "mnasnt", "space: no search space is called 'mnasnt'. Did you mean 'mnasnet"),
        ("[250, 300.5]", "'mobilenet-v9'", "search.target: "),
        ("[250, 300.5]", "[8, 8.0]", "search.target: a list has one value or more, each once"),
        ("[250, 300.5]", "['mobilenet-v2', 'MOBILENET-V2']", "search: two of its runs would be in"),
        ("[250, 300.5]", "0", "search.target: "),
        ("[250, 300.5]", "'nan'", "search.target: "),
        ("[250, 300.5]", "[8, 8]", "search.target: a list has one value or more, each once"),
        ("[250, 300.5]", "[]", "search.target: a list has one value or more, each once"),
        ("evaluations = 16", f"seed = {[*range(126)]}", "search: 252 runs; 250 is the most"),
        (
            "'surrogate'",
            "'surogate'",
            "search.accuracy: no accuracy estimator is called 'surogate'",
        ),
        ("evaluations = 16", "strategy = 'nsga4'", "no strategy is called 'nsga4'. Did you mean"),
        ("evaluations = 16", "set = ['populaton=4']", "nsga2 has no setting 'populaton'"),
        ("evaluations = 16", "fix = ['knl=4']", "search.fix and search.exclude: "),
        ("evaluations = 16", "data = 'none'", "search.data: there is no none"),
        ("evaluations = 16", "start-from = 'gone'", "search.start-from: there is no gone"),
        ("evaluations = 16", "quantised = ['gone']", "search.quantised: there is no gone"),
        (
            "evaluations = 16",
            "limit = ['parms<=5e6']",
            "search.limit: no objective is called 'parm",
        ),
        (
            "evaluations = 16",
            "limit = ['latency:fak<=9']",
            "search.limit: no device is called 'fak",
        ),
        ("evaluations = 16", "also = ['mac']", "search.also: no objective is called 'mac'"),
        ("evaluations = 16", "time = 'soon'", "search: --time takes hours, minutes or seconds"),
        ("evaluations = 16", "budget = '9'", "search: --budget takes hours, minutes or seconds"),
        ("evaluations = 16", "evaluations = 0", "search: "),
        ("evaluations = 16", "evaluations = 99999999999", "search: --evaluations: at most 1,000,0"),
        ("top = 1", "top = 99999", "validate: --top: at most 10,000, got"),
        ("[fit]\n", "", "model: there is no gone.json"),
        ('"mine.toml"', '""', "space: is empty"),
        ('"fake"', '""', "device: is ''; it must be a text"),
        ('out = "all"', 'out = ""', "out: is ''; it must be a text"),
        ('out = "all"', 'db = ""', "db: is ''; it must be a text"),
        ("evaluations = 16", "strategy = ''", "search.strategy: is empty"),
        ("[fit]", "[fit]\n[promote]\ntop = 2", "promote.data: Missing option"),
        ("networks = 12", "network = ['x.onnx']", "profile.network: there is no file x.onnx"),
        ("[validate]", "[[validate]]", "validate: is a table: write  [validate]"),
        ('out = "all"', 'model = "m.json"', "model: is a finished model, and [fit] makes one"),
        ("[profile]", "[profile", "study.toml is not a TOML file: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(
    run: Run, study: Path, old: str, new: str, says: str
) -> None:
    text = STUDY.replace('"surrogate"', "'surrogate'")
    assert text.count(old) == 1
    if "gone.json" in says:
        text = f'model = "gone.json"\n{text}'
    study.write_text(text.replace(old, new), encoding="utf-8")
    code, out, err = run("run")
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert "study.toml" in err and says in err
    assert not Path("all").exists()


def test_a_store_elsewhere_keeps_its_own_model(
    run: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    for text, models in (
        (STUDY, ["all/model.json"]),
        (
            STUDY.replace('"fake"', '["big", "little"]'),
            ["all/model.big.json", "all/model.little.json"],
        ),
    ):
        text = text.replace("[250, 300.5]", "'mobilenet-v2'")
        targets = text.replace("'mobilenet-v2'", "{big = 9, little = 40}")
        study.write_text(f'db = "lab.db"\n{targets if len(models) > 1 else text}', encoding="utf-8")
        lines = [shlex.split(line) for line in run.json("run", "--commands")]
        assert [w[-2:] for w in lines if w[1] == "fit"] == [["--out", m] for m in models]


READY = "pixel4/tflite/cpu-1large/float32"
SEVERAL = STUDY.replace('"fake"', f'["big", "{READY}", "little"]').replace(
    "target = [250, 300.5]", f'target = {{big = 9, little = 40.5, "{READY}" = 30}}'
)


def test_a_study_of_several_devices(run: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One search for all; each that can be measured is profiled, fitted and validated on."""
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    study.write_text(SEVERAL, encoding="utf-8")
    at, folder = "--db all/phonenas.db --device", "all/nsga2-9-30-40.5-seed0"
    validate = f"phonenas validate {folder} {at}"
    expected = [
        f"phonenas profile {at} big --device little --space mine.toml --networks 12",
        f"phonenas fit {at} big --out all/phonenas.big.model.json",
        f"phonenas fit {at} little --out all/phonenas.little.model.json",
        f"phonenas search {at} big --device {READY} --device little --space mine.toml "
        "--model all/phonenas.big.model.json --model all/phonenas.little.model.json "
        f"--target big=9 --target {READY}=30 --target little=40.5 --evaluations 16 "
        f"--accuracy surrogate --strategy nsga2 --seed 0 --out {folder}",
        f"{validate} big --model all/phonenas.big.model.json --top 1",
        f"{validate} little --model all/phonenas.little.model.json --top 1",
        f"phonenas report {folder}",
    ]
    assert [words_of(s) for s in run.json("run", "--commands")] == [words_of(s) for s in expected]
    for old, new, says in (
        ("little = 40.5, ", "", "search.target: little has none. Write  target = { big = 8, "),
        ("big = 9", "bg = 9", "search.target: --target bg=9: a device of this search"),
        ("big = 9", "big = true", "search.target: is True; it must be a number or a text"),
        ("evaluations = 16", 'precision = "any"', "search.precision: any is of one device"),
        ("[fit]\n", "", "model: is a list of files, one for each of several devices"),
    ):
        text = SEVERAL.replace(old, new)
        study.write_text(('model = "m.json"\n' * (old == "[fit]\n")) + text, encoding="utf-8")
        code, _, err = run("run")
        assert code == 2 and says in err, err


def test_of_several_devices_each_step_rests_on_its_own(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    counted.write_text(SEVERAL, encoding="utf-8")
    name = "nsga2-9-30-40.5-seed0"
    made = {s["step"]: s["made"] for s in steps_of(run)}
    assert made[f"validate {name} big"] == f"all/{name}/validation.json"
    # The ready phone is the second one, and is not measured.
    assert made[f"validate {name} little"] == f"all/{name}/device3/validation.json"
    Path("all/phonenas.big.model.json").unlink()
    again = [s["step"] for s in steps_of(run) if not s["before"]]
    assert "fit big" in again and "fit little" not in again and "profile" not in again
    assert f"search {name}" in again


@pytest.mark.parametrize("devices", [("big", READY), (READY, "big")])
def test_the_first_device_is_trained_for_where_it_can_be_measured(
    run: Run, study: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, str]
) -> None:
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    Path("images").mkdir()
    text = STUDY.replace('"fake"', json.dumps(devices))
    text = text.replace("[250, 300.5]", f'{{big = 9, "{READY}" = 30}}')
    study.write_text(f"{text}[promote]\ndata = 'images'\n", encoding="utf-8")
    lines = [shlex.split(line) for line in run.json("run", "--commands")]
    (words,) = [w for w in lines if w[1] == "promote"]
    given = [words[i + 1] for i, word in enumerate(words) if word == "--device"]
    assert given == (["big"] if devices[0] == "big" else [])


def test_a_target_of_several_devices_is_the_same_in_any_order(
    run: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)

    def with_targets(*targets: str) -> None:
        several = STUDY.replace('"fake"', '["big", "little"]')
        text = several.replace("[250, 300.5]", f"[{', '.join(targets)}]")
        study.write_text(text, encoding="utf-8")

    at, other = "{big = 9, little = 40.5}", "{little = 40.5, big = 9}"
    with_targets(at, "{little = 9, big = 40.5}")
    lines = [shlex.split(s) for s in run.json("run", "--commands")]
    folders = [w[w.index("--out") + 1] for w in lines if w[1] == "search"]
    assert folders == ["all/nsga2-9-40.5-seed0", "all/nsga2-40.5-9-seed0"]
    with_targets(at)
    once = run.json("run", "--commands")
    with_targets(other)
    assert run.json("run", "--commands") == once
    with_targets(at, other)
    code, _, err = run("run")
    assert code == 2 and "search.target: a list has one value or more, each once" in err


def test_numbers_are_written_in_all_their_digits(run: Run, study: Path) -> None:
    targets = "[1234.567, 1234.568, 1234567.5, 8.0]"
    study.write_text(STUDY.replace("[250, 300.5]", targets), encoding="utf-8")
    lines = [shlex.split(s) for s in run.json("run", "--commands")]
    searches = [words for words in lines if words[1] == "search"]
    given = ["1234.567", "1234.568", "1234567.5", "8"]
    assert [w[w.index("--target") + 1] for w in searches] == given
    folders = [w[w.index("--out") + 1] for w in searches]
    assert folders == [f"all/nsga2-{t}-seed0" for t in given]
    assert lines[-1][2:6] == folders


def test_a_step_may_have_its_own_precision(run: Run, study: Path) -> None:
    text = f'precision = "float32"\n{STUDY}'.replace("[fit]", "[fit]\nprecision = 'int8'")
    text = text.replace("[search]", "[search]\nprecision = 'any'")
    study.write_text(text.replace("top = 1", "top = 1\nprecision = 'int8'"), encoding="utf-8")
    lines = [shlex.split(s) for s in run.json("run", "--commands")]
    of = {w[1]: w for w in lines if "--precision" in w}
    assert {name: w[w.index("--precision") + 1] for name, w in of.items()} == {
        "profile": "float32",
        "fit": "int8",
        "search": "any",
        "validate": "int8",
    }
    assert all(words.count("--precision") == 1 for words in of.values())
    assert "--model" not in of["search"]  # it takes those of all precisions, from the store
    assert of["validate"][of["validate"].index("--model") + 1] == MODEL.replace(
        ".json", ".int8.json"
    )


@pytest.fixture
def counted(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Steps that only write their files, so that what is done again is seen quickly."""

    def do(step: Any, *_: Any) -> None:
        for file in step.makes:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes(b"made")

    monkeypatch.setattr("phonenas.cli.setup.run._do", do)
    return study


def done_again(run: Run) -> list[str]:
    return [s["step"].split()[0] for s in run.json("run")["steps"] if not s["before"]]


def test_a_step_is_done_again_where_what_it_reads_changed(run: Run, counted: Path) -> None:
    text = STUDY.replace("[250, 300.5]", "250\ndata = 'images'\nstart-from = 'known.csv'")
    counted.write_text(text, encoding="utf-8")
    images = Path("images/train/a")
    images.mkdir(parents=True)
    (images / "1.png").write_bytes(b"1")
    Path("known.csv").write_text("a", encoding="utf-8")
    every = ["profile", "fit", "search", "validate", "report"]
    assert done_again(run) == every and done_again(run) == []
    Path("mine.toml").write_text(SPACE.replace("filters = 8", "filters = 16"), encoding="utf-8")
    assert done_again(run) == every and done_again(run) == []
    for change in (
        lambda: Path("known.csv").write_text("b", encoding="utf-8"),
        lambda: (images / "2.png").write_bytes(b"2"),
        lambda: Path(MODEL).write_text("another", encoding="utf-8"),
        lambda: Path("all/nsga2-250-seed0/checkpoint.npz").unlink(),
    ):
        change()
        again = done_again(run)
        assert again[0] == "search" and again[-2:] == ["validate", "report"], again
        assert done_again(run) == []


def steps_of(run: Run) -> list[dict[str, Any]]:
    return list(run.json("run")["steps"])


def test_what_rests_on_a_step_is_done_again_with_it(run: Run, counted: Path) -> None:
    Path("images").mkdir()
    text = STUDY.replace("[report]", "[promote]\ndata = 'images'\n[report]")
    counted.write_text(text, encoding="utf-8")
    every = ["profile", "fit", *["search", "validate", "promote", "report"] * 2, "report"]
    # What a step writes into the folder that it reads is no reason to do it again.
    assert done_again(run) == every and done_again(run) == []
    Path("all/nsga2-250-seed0/validation.json").unlink()
    assert done_again(run) == ["validate", "promote", "report", "report"]
    Path("all/nsga2-300.5-seed0/promoted.json").unlink()
    assert done_again(run) == ["promote", "report", "report"]
    Path("all/comparison.html").unlink()
    assert done_again(run) == ["report"]


def test_a_step_that_failed_is_not_what_it_was_before(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(done_again(run)) == 9

    def fail(step: Any, *_: Any) -> None:
        assert step.words[0] == "validate"
        raise Incomplete("it wrote half of it")

    with monkeypatch.context() as patch:
        patch.setattr("phonenas.cli.setup.run._do", fail)
        counted.write_text(STUDY.replace("top = 1", "top = 2"), encoding="utf-8")
        code, _, err = run("run")
        assert code == 1 and "it wrote half of it" in err
    counted.write_text(STUDY, encoding="utf-8")
    assert done_again(run) == ["validate", "report", "report"]


def test_what_changes_while_a_step_reads_it_may_not_have_been_read(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.write_text(
        STUDY.replace("[250, 300.5]", "250\nstart-from = 'known.csv'"), encoding="utf-8"
    )
    Path("known.csv").write_text("a", encoding="utf-8")
    do = run_module._do

    def change(step: Any, *more: Any) -> Any:
        if step.words[0] == "search":
            Path("known.csv").write_text("b", encoding="utf-8")
        return do(step, *more)

    with monkeypatch.context() as patch:
        patch.setattr("phonenas.cli.setup.run._do", change)
        assert done_again(run) == ["profile", "fit", "search", "validate", "report"]
    assert done_again(run) == ["search", "validate", "report"] and done_again(run) == []


def test_what_tells_whether_a_file_changed(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDY.replace("[250, 300.5]", "250\nstart-from = 'old'").replace(
        '"surrogate"', '"table:known.csv"'
    )
    counted.write_text(text, encoding="utf-8")
    Path("old").mkdir()
    for name in ("run.json", "promoted.json", "report.html"):
        Path("old", name).write_text("old", encoding="utf-8")
    Path("known.csv").write_text("abc", encoding="utf-8")
    again = ["search", "validate", "report"]
    assert done_again(run) == ["profile", "fit", *again] and done_again(run) == []
    # Of a run its documents count; a name may stand behind a colon.
    Path("old/report.html").write_text("new", encoding="utf-8")
    assert done_again(run) == []
    for name in ("old/run.json", "old/promoted.json", "known.csv"):
        Path(name).write_text("new", encoding="utf-8")
        assert done_again(run) == again and done_again(run) == []
    # A large file by its size and time, without reading it.
    monkeypatch.setattr("phonenas.cli.setup.run._LARGE_BYTES", 2)
    done_again(run)
    about = Path("known.csv").stat()
    os.utime("known.csv", ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000))
    assert done_again(run) == again and done_again(run) == []


def test_a_step_that_ends_with_a_code_ends_the_study(
    run: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends:
        def __init__(self, stop: BaseException) -> None:
            self.stop = stop

        def make_context(self, *_: Any) -> Any:
            return contextlib.nullcontext()

        def invoke(self, _: Any) -> None:
            raise self.stop

    for stop, told in (
        (typer.Exit(3), "step 1 of 9, profile: phonenas profile "),
        (SystemExit(3), "ended with exit code 3"),
    ):
        monkeypatch.setattr(run_module, "step_commands", lambda stop=stop: {"profile": Ends(stop)})
        code, _, err = run("run")
        assert code == 1 and told in err
    assert not any(Path("all").glob("*seed0"))


def test_a_profile_that_gave_up_too_much_is_done_again(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_run: Any = run_module
    do = setup_run._do

    def too_few(step: Any, *more: Any) -> Any:
        if step.words[0] == "fit":
            raise NotEnoughData(
                "5 whole network(s) do not calibrate a latency model; it takes 10. Measure more:  "
                "phonenas profile --networks 20"
            )
        return do(step, *more)

    monkeypatch.setattr(setup_run, "_do", too_few)
    code, _, err = run("run")
    assert code == 1 and "NotEnoughData: 5 whole" in err
    assert "it takes 10. Close other programs, then give the same command again" in err
    monkeypatch.setattr(setup_run, "_do", do)
    assert done_again(run)[:2] == ["profile", "fit"] and done_again(run) == []


def test_a_step_is_done_again_where_its_device_changed(
    run: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.write_text(STUDY.replace('"fake"', '"sim"'), encoding="utf-8")
    monkeypatch.setattr("phonenas.devices.connect", lambda name, **settings: None)
    table = '[sim]\ntransport = "simulated"\naddress = "1"\n[other]\ntransport = "simulated"\n'
    Path("devices.toml").write_text(table, encoding="utf-8")
    assert len(done_again(run)) == 9 and done_again(run) == []
    Path("devices.toml").write_text(table + 'address = "3"\n', encoding="utf-8")
    assert done_again(run) == []
    Path("devices.toml").write_text(table.replace('"1"', '"2"'), encoding="utf-8")
    assert len(done_again(run)) == 9


def test_a_password_is_not_kept(run: Run, counted: Path) -> None:
    url = "postgresql+psycopg://lab:secret@db.lab/phones"
    counted.write_text(f'db = "{url}"\n{STUDY}', encoding="utf-8")
    assert len(done_again(run)) == 9
    record = Path("all/study.json").read_text(encoding="utf-8")
    assert "secret" not in record and "lab:***@db.lab" in record
    assert done_again(run) == []


def test_without_a_file_or_a_step(run: Run) -> None:
    code, _, err = run("run")
    assert code == 2 and "there is no study file study.toml. Write one:  phonenas init study" in err
    Path("study.toml").write_text("device = 'fake'\n", encoding="utf-8")
    assert "names no step; write one or more of [profile], [fit], [search]" in run("run")[2]
    Path("study.toml").write_text("device = 'fake'\n[report]\n", encoding="utf-8")
    assert "report: is about the run of a search: add  [search]" in run("run")[2]


def test_every_option_of_a_step_is_a_key() -> None:
    """What a study shares is an option of each command that it is given to."""
    from phonenas.cli.setup import study as module

    whole: Any = typer.main.get_command(cli.app)
    for key, names in module._SHARED.items():
        for name in names:
            assert any(f"--{key}" in p.opts for p in whole.commands[name].params), (key, name)


@pytest.mark.fault(
    "A study is in a folder that is another's, or that another process has.",
    "`holds a search (run.json)`; `another process works in …`",
    "Choose another --out; wait for the other.",
)
@pytest.mark.usefixtures("study")
def test_a_folder_has_one_owner(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phonenas.data.files._LOCK_WAIT_S", 0.0)
    with lock_folder(Path("all")):
        code, _, err = run("run")
    assert code == 1 and "another process works in all" in err
    Path("all/run.json").write_text("{}", encoding="utf-8")
    code, _, err = run("run")
    assert code == 1 and "all holds a search (run.json)" in err
    Path("all/run.json").rename("all/study.json")
    code, _, err = run("run")
    assert code == 1 and "is not a study's record" in err and "Remove it" in err
    code, _, err = run("search", "--device", "fake", "--out", "all")
    assert code == 1


KILLED = """\
out = "all"
device = "sim"
space = "mine.toml"
[profile]
networks = 12
quick = true
[fit]
[search]
target = 100
evaluations = 16
accuracy = "surrogate"
[validate]
top = 1
[report]
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_killed_at_any_moment_goes_on(tmp_path: Path, environment: dict[str, str]) -> None:
    """Killed as soon as each of its files is there, it ends as the one that was left alone."""
    (tmp_path / "mine.toml").write_text(SPACE, encoding="utf-8")
    (tmp_path / "study.toml").write_text(KILLED, encoding="utf-8")
    table = '[sim]\ntransport = "simulated"\naddress = "1"\n'
    (tmp_path / "devices.toml").write_text(table, encoding="utf-8")

    def start(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "phonenas", "run", "--out", out, "--json", "--quiet"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def ended(out: str) -> dict[str, Any]:
        done = start(out)
        text, _ = done.communicate(timeout=PATIENCE_S)
        assert done.returncode == 0
        return dict(json.loads(text))

    def killed(job: subprocess.Popen[bytes]) -> bool:
        """Kill it, and say whether it still worked; on a busy computer it may have ended."""
        if amid := job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate(timeout=PATIENCE_S)
        return amid

    whole = ended("whole")
    assert not any(s["before"] for s in whole["steps"])
    run = "nsga2-100-seed0"
    moments = (
        "phonenas.db",
        "phonenas.fake.model.json",
        "study.json",
        f"{run}/run.json",
        f"{run}/validation.json",
    )
    for name in moments:
        file = tmp_path / "killed" / name
        before = file.stat().st_mtime_ns if file.exists() else 0
        job = start("killed")

        def written(file: Path = file, before: int = before) -> bool:
            return file.exists() and file.stat().st_mtime_ns > before

        wait_for(name, lambda job=job, written=written: written() or job.poll() is not None)
        killed(job)
    last = ended("killed")
    assert [s["step"] for s in last["steps"]] == [s["step"] for s in whole["steps"]]
    fronts = [search.load(tmp_path / out / run).front.to_frame() for out in ("whole", "killed")]
    assert fronts[0].equals(fronts[1])
    assert all(s["before"] for s in ended("killed")["steps"])
    # Killed as soon as a step with other keys is begun, it ends with what these give.
    study = tmp_path / "study.toml"
    study.write_text(KILLED.replace("top = 1", "top = 2"), encoding="utf-8")
    record = tmp_path / "killed" / "study.json"
    at, job = record.stat().st_mtime_ns, start("killed")
    wait_for("the step", lambda: record.stat().st_mtime_ns > at or job.poll() is not None)
    amid = killed(job)
    before = {s["step"].split()[0]: s["before"] for s in ended("killed")["steps"]}
    assert before["search"] and not (amid and before["report"])
    validated = json.loads((tmp_path / "killed" / run / "validation.json").read_text())
    assert len(validated["networks"]) == 2
