"""Options: where they act, where they are refused, and what help and errors say."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from fakes import TinySpace, undigested
from patience import PATIENCE_S

from phonenas import search, space
from phonenas.cli import spaces as space_commands
from phonenas.data import MeasurementStore
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture
ONE = ("profile", "--device", "fake", "--network", "mnasnet-small", "--resolution", "32", "--quiet")
BENCHMARK = (
    *("benchmark", "accuracy", "t.csv", "--space", "nasbench-macro"),
    *("--genes", "l*", "--target", "acc"),
)
READY = ("search", "--device", "pixel4/tflite/cpu-1large/float32", "--out", "r", "--quiet")
SEARCH = (
    *("search", "--device", "fake", "--space", "tiny", "--evaluations", "60", "--quiet"),
    *("--accuracy", "surrogate"),
)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "mnasnet-a1", "--width", "1", "--width", "2"), "'--width': it takes one value"),
        (
            ("validate", "r", "--device", "a", "--device", "b"),
            "'--device': it takes one value and is given twice",
        ),
        (
            ("search", "--device", "fake", "--device", "fake", "--out", "r"),
            "each device once; given twice: fake",
        ),
        (("show", "mnasnet-a1", "--db", "x.db"), "No such option"),
        (("space", "mnasnet", "--db", "x.db"), "No such option"),
        (("devices", "--db", "x.db"), "No such option"),
        (("report", "r", "--db", "x.db"), "No such option"),
        (("fit", "--device", "fake", "--db", ""), "--db is empty"),
        (("fit", "--device", "fake", "--db", " "), "--db is empty"),
        (("show", "net.onnx", "--resolution", "32"), "there is no file net.onnx"),
        (("predict", "net.onnx", "--width", "0.5"), "--width does not apply to net.onnx"),
        (("show", "mnasnet-a1", "--all"), "--all applies to a run"),
        (("show", "mnasnet-a1", "--csv", "x.csv"), "--csv applies to a run"),
        (("show", "mnasnet-a1", "--parquet", "x"), "--parquet applies to a run"),
        (
            ("search", "--out", "r", "--set", "populaton=40"),
            "nsga2 has no setting 'populaton'. Did you mean 'population'? Known: crossover, pop",
        ),
        (("search", "--out", "r", "--set", "population"), "--set takes NAME=VALUE"),
        (
            ("search", "--out", "r", "--set", "population=4", "--set", "population=5"),
            "--set population is given twice: 4 and 5",
        ),
        (
            ("search", "--out", "r", "--fix", "block3_kernl=5"),
            "no gene 'block3_kernl'. Did you mean 'block3_kernel', 'block7_kernel' or "
            "'block6_kernel'? All 48 names:  phonenas space mnasnet --genes",
        ),
        (("search", "--out", "r", "--time", "2x"), "--time takes hours, minutes or seconds"),
        (("search", "--out", "r", "--budget", "8"), "--budget takes hours, minutes or seconds"),
        ((*READY, "--budget", "8h"), "--budget is a time of training, and imagenet trains no"),
        ((*READY, "--halving", "3"), "Successive halving goes with --accuracy training"),
        ((*READY, "--inherit"), "leave --inherit out"),
        ((*READY, "--min-epochs", "2"), "--min-epochs goes with --halving"),
        ((*READY, "--halving", "1"), "Input should be greater than or equal to 2"),
        (("search", "--out", "r", "--time", "0s"), "the time of a search is above 0 s, got 0"),
        (
            ("search", "--out", "r", "--patience", "0"),
            "'--patience': Input should be greater than or equal to 1",
        ),
        (("search", "--out", "r", "--start-from", "x.csv"), "x.csv cannot be read"),
        (("search", "--out", "r", "--start-from", "."), "there is no run in ."),
        (("search", "--out", "r", "--exclude", "op=cnv"), "op has no option 'cnv' in mnasnet"),
        ((*ONE[:-1], "--sustain", "9"), "--sustain acts only with --mode sustained"),
        ((*ONE, "--networks", "9"), "--networks is the number of random networks of a space"),
        (
            ("profile", "--device", "fake", "--operator", "linear_1x1_8_4", "--resolution", "32"),
            "--resolution changes nothing here",
        ),
        (("profile", "--like", "x", "--networks", "9"), "--networks does not go with --like"),
        (
            ("profile", "--device", "fake", "--kernels-of", "net.onnx", "--resolution", "64"),
            "there is no file net.onnx",
        ),
        (("supernet", "--out", "net", "--space", "mnasnet"), "--data is needed with --space"),
        (("supernet", "--out", "net", "--read", "mnasnet-a1"), "--data is needed with --space"),
        (("supernet", "--out", "net", "--data", "x.npz"), "--data acts only where"),
        (("supernet", "--out", "net", "--broken", "skip"), "--broken acts only where"),
        (("supernet", "--out", "net", "--threads", "2"), "--threads acts only where"),
        (("supernet", "--out", "net", "--device", "cpu"), "--device acts only where"),
        ((*BENCHMARK, "--broken", "skip"), "--broken is about the images of --data"),
        (
            (*BENCHMARK, "--data", "x.npz", "--estimator", "surrogate"),
            "--data is for estimators that take images, not for surrogate",
        ),
        (("accuracy", "mnasnet-a1", "--broken", "skip"), "--broken is about the images of --data"),
        (("accuracy", "mnasnet-a1", "--again"), "--again is about a cache"),
        (("search", "--device", "fake", "--soft", "--out", "r"), "--soft needs a target"),
        (("export-network", "mnasnet-a1", "--out", "x"), "--format is needed"),
        (("export-network", "mnasnet-a1", "--out", "x", "--format", "pb"), "no format is called"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(
    run: Run, words: tuple[str, ...], says: str
) -> None:
    if "--operator" in words:
        key = space.zoo.find("mnasnet-b1").operators()[0].key
        words = tuple(key if word == "linear_1x1_8_4" else word for word in words)
    code, out, err = run(*words)
    assert code == 2 and out == "", err
    assert says in err and "Traceback" not in err


def test_a_table_of_networks_has_no_space(run: Run, tmp_path: Path) -> None:
    table = "kind,subject,latency_ms\nnetwork,mnasnet-b1,30.25\n"
    (tmp_path / "networks.csv").write_text(table)
    words = ("import", "csv", "networks.csv", "--device", "phone")
    for option, value in (("--space", "mnasnet"), ("--resolution", "192")):
        code, _, err = run(*words, option, value)
        assert code == 2 and f"{option} is about operators, and these tables hold none" in err
    assert not (tmp_path / "phonenas.db").exists()
    assert run.json(*words)["imported"] == 1


def test_several_values_are_given_by_repeating(run: Run) -> None:
    code, _, err = run("profile", "--device", "nobody", "--device", "fake")
    assert code == 2 and "no device is called 'nobody'" in err


def test_version_help_and_completion(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0 and out == "phonenas 0.2.0\n"
    assert run("-h")[1] == run("--help")[1]
    assert "--install-completion" in run("-h")[1] and "export-network" in run("-h")[1]


def test_help_calls_values_by_what_they_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    whole = run("-h")[1]
    assert "phonenas init study, then phonenas run study.toml" in " ".join(whole.split())
    commands = re.findall(r"^  ([a-z-]+) {2,}[A-Z]", whole.partition("Commands:")[2], re.M)
    assert len(commands) > 25
    for command in commands:
        code, out, _ = run(command, "-h")
        assert code == 0 and max(map(len, out.splitlines())) <= 100
        for word in ("<str", "<int", "<float", "<path", "list[", "[[", "{", "int range"):
            assert word not in out, (command, word)
    shown = " ".join(run("search", "-h")[1].split())
    for option in ("--seed N ", "--chance X ", "--out PATH ", "--device TEXT ", "--soft A soft"):
        assert option in shown
    assert run("predict", "-h")[1].startswith("Usage: phonenas predict [OPTIONS] NETWORK...\n")
    assert run("examples", "-h")[1].startswith("Usage: phonenas examples [OPTIONS] [TASK]\n")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("search", "-h"), ("nsga2", "weighted", "rl", "surrogate", "random", "mnasnet-flat")),
        (("search", "-h"), ("zero_cost:PROXY", "training:RECIPE", "table:FILE")),
        (("space", "-h"), ("accel-nasbench", "proxylessnas", "nasbench-macro", "MODULE:NAME")),
        (("import", "-h"), ("ofa", "singlepathnas", "edge", "csv")),
        (("benchmark", "search", "-h"), ("nsga2", "surrogate")),
    ],
)
def test_help_lists_what_is_registered(
    run: Run, words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    code, out, _ = run(*words)
    assert code == 0 and "{" not in out.split("Options:")[1]
    joined = "".join(out.split())
    assert all(name in joined for name in names)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), OverflowError("no")])
def test_any_other_error_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*a: object, **k: object) -> None:
        raise error

    monkeypatch.setattr(space_commands, "table", fail)
    code, out, err = run("show", "mnasnet-a1")
    assert code == 1 and out == ""
    (line,) = err.splitlines()
    assert type(error).__name__ in line and "phonenas show mnasnet-a1" in line
    assert "--verbose" in line
    code, _, err = run("show", "mnasnet-a1", "--verbose")
    last = f"Unexpected: {type(error).__name__}: "
    assert code == 1 and "Traceback" in err and err.splitlines()[-1].startswith(last)


def test_a_store_nearby_is_named(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "my demo"
    folder.mkdir(parents=True)
    (tmp_path / "other.db").write_text("no store", encoding="utf-8")
    MeasurementStore(folder / "phonenas.db").close()
    for words in (("fit", "--device", "fake"), ("predict", "mnasnet-a1", "--device", "fake")):
        code, _, err = run(*words)
        assert code == 1
        assert "Stores nearby: runs/my demo/phonenas.db." in err
        assert "--db 'runs/my demo/phonenas.db'" in err and "other.db" not in err


@pytest.mark.usefixtures("fast")
def test_a_run_is_shown_and_its_networks_are_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(space, "get", lambda name, resolution=None: TinySpace(resolution=32))
    words = ("profile", "--device", "fake", "--space", "tiny", "--networks", "12", "--quiet")
    run.json(*words)
    run.json("fit", "--device", "fake")
    searched = run.json(*SEARCH, "--target", "300", "--out", "r")
    shown = run.json("show", "r")
    assert (shown["run"], shown["front"]) == ("r", len(searched["front"]))
    rewards = [n["reward"] for n in shown["networks"]]
    assert rewards == sorted(rewards, reverse=True) and len(rewards) == len(searched["front"])
    by_id = {c["id"]: c["block_args"] for c in searched["front"]}
    assert {n["id"]: n["network"] for n in shown["networks"]} == by_id

    every = run.json("show", "r", "--all", "--csv", "all.csv")
    assert len(every["networks"]) == searched["evaluations"] and every["csv"] == "all.csv"
    lines = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == searched["evaluations"] + 1 and "network" in lines[0].split(",")
    assert sum(by_id[0] in line for line in lines) == 1

    fronts = [text for _, text in sorted(by_id.items())]
    for known, first in (("r", fronts), ("all.csv", [n["network"] for n in every["networks"]])):
        found = run.json(*SEARCH, "--start-from", known, "--out", f"from-{known}")
        assert found["evaluations"] == 60 and found["ended"] is None
        begun = search.load(f"from-{known}").to_frame().network
        assert begun[: len(first)].tolist() == first
    longer = ["600" if word == "60" else word for word in SEARCH]
    code, out, _ = run(*longer, "--patience", "5", "--out", "p")
    assert code == 0 and "ended before 600 evaluations: the last 5 networks added 0.1 % or" in out
    assert "the same command with more --patience, or without, goes on" in out
    code, out, _ = run(*longer, "--time", "0.000001s", "--out", "t")
    assert code == 0 and "ended before 600 evaluations: 0 s are over; the same command with " in out

    written = run.json("show", "r", "--parquet", "named.parquet")
    assert written["parquet"] == "named.parquet" and written["networks"] == shown["networks"]
    named = pd.read_parquet("named.parquet")
    assert len(named) == searched["evaluations"]
    candidates = named[named.name != ""]
    assert dict(zip(candidates.name, candidates.network, strict=True)) == {
        f"r:{i}": text for i, text in by_id.items()
    }

    code, out, _ = run("show", "r")
    assert code == 0 and f"r: {len(rewards)} networks on the front, target 300.000 ms" in out
    assert "left out" not in out
    document = json.loads((tmp_path / "r/run.json").read_text(encoding="utf-8"))
    text = json.dumps(undigested({**document, "left_out": 3}))
    (tmp_path / "r/run.json").write_text(text, encoding="utf-8")
    assert "3 extrapolated networks left out" in run("show", "r")[1]
    assert run.json("show", "r")["left_out"] == 3
    assert out.splitlines()[2].split()[:3] == ["id", "predicted", "90"]
    assert "○ predicted" in out.splitlines()[-1]
    code, _, err = run("predict", "r", "--device", "fake")
    assert code == 2 and "r is a run" in err and "phonenas show r" in err
    code, _, err = run("show", "r", "--width", "2")
    assert code == 2 and "--width does not apply to a run" in err

    written = run.json("export-network", "r:0", "--out", "out/n.onnx")
    assert (written["format"], written["trained"]) == ("onnx", False)
    assert written["network"] == by_id[0]
    assert written["bytes"] == (tmp_path / "out" / "n.onnx").stat().st_size
    counts = run.json("show", "r:0"), run.json("show", "out/n.onnx")
    assert counts[0]["macs"] == pytest.approx(counts[1]["macs"], rel=0.01)


@pytest.mark.usefixtures("fast")
def test_rejections_are_listed(run: Run) -> None:
    assert run.json(*ONE)["rejected"] == 0
    with MeasurementStore("phonenas.db") as store:
        (conditions,) = store.conditions("fake")
        store.reject(conditions, [("a", "it took 3.5 ms instead of 2 ms"), ("b", "no core")])
        store.reject(conditions, [("b", "it took 17 ms instead of 4.25 ms")])
    rejections = run.json("export", "m.csv")["rejections"]
    assert [(r["count"], r["subjects"], r["example"]) for r in rejections] == [
        (2, 2, "it took 17 ms instead of 4.25 ms"),
        (1, 1, "no core"),
    ]
    code, out, _ = run("export", "m.csv")
    assert code == 0 and "rejected readings of all jobs" in out and "no core" in out


def test_a_command_to_copy_is_quoted(run: Run) -> None:
    shutil.rmtree("my lab", ignore_errors=True)
    Path("my lab").mkdir()
    code, _, err = run("predict", "mnasnet-a1", "--device", "fake", "--db", "my lab/x.db")
    assert code == 1 and "phonenas fit --device fake --db 'my lab/x.db'" in err


def test_help_imports_nothing_heavy(environment: dict[str, str]) -> None:
    import subprocess

    heavy = ("numpy", "pandas", "torch", "onnx", "lightgbm", "pymoo", "sqlalchemy", "plotly")
    heavy += ("sklearn", "phonenas.space.zoo.joined", "phonenas.space.search_space")
    code = (
        "import sys; sys.argv = ['phonenas', '--help']\n"
        "from phonenas.cli import main\n"
        "try:\n main()\nexcept SystemExit: pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.usefixtures("fast")
def test_a_space_of_ones_own_is_kept_by_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'resolution = 32\n[stem]\nfilters = 8\n[[blocks]]\nop = "mbconv"\nexpansion = [3, 6]\n'
        "kernel = [3, 5]\nfilters = [8, 16]\nlayers = [1, 2]\nstride = 2\n",
        encoding="utf-8",
    )
    shown = run.json("space", "mine.toml")
    assert shown["size"] == 16 and shown["resolution_px"] == 32
    words = ("--device", "fake", "--space", "mine.toml", "--quiet")
    assert run.json("profile", *words, "--networks", "12")["measured"] > 12
    run.json("fit", "--device", "fake")
    searching = ("search", *words, "--target", "300", "--evaluations", "16", "--out", "r")
    searching += ("--accuracy", "surrogate")
    searched = run.json(*searching)
    assert run.json(*searching)["front"] == searched["front"]
    assert run.json("show", "r:0")["block_args"] == searched["front"][0]["block_args"]
    assert len(run.json("show", "r", "--all")["networks"]) == searched["evaluations"]
    assert run.json("validate", "r", "--device", "fake", "--top", "1")["networks"]
