"""Several runs beside each other: points, words and page, honest about what does not compare."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import servers
from fakes import undigested
from patience import PATIENCE_S

from phonenas import cli
from phonenas.report.comparison import Comparison, compare
from phonenas.report.comparison_page import as_json, notes, tables, write_comparison
from phonenas.report.comparison_plots import colours, courses_figure, fronts_figure
from phonenas.search.evaluations import Evaluations
from phonenas.search.pareto import Candidate, ParetoFront, hypervolume, non_dominated
from phonenas.search.run_folder import Checkpoint, Loaded, RunFolder, load
from phonenas.space import get
from phonenas.space.errors import InvalidArgument, UnknownName, UnsupportedFormat
from tests.report.test_run import EVIL, Page

SPACE = get("mnasnet")
ERRORS = np.random.default_rng(5).uniform(0.0, 0.02, 400)
GENOMES = SPACE.sample(np.random.default_rng(0), 400)
NAMES = [str(SPACE.decode(g)) for g in GENOMES]
RNG = np.random.default_rng(1)
LATENCY = RNG.uniform(4, 12, 400)
TOP1 = 0.5 + 0.02 * LATENCY + RNG.normal(0, 0.02, 400)


def run(
    folder: Path,
    rows: npt.ArrayLike,
    *,
    target_ms: float | None = 10.0,
    origin: str = "measured",
    measured: dict[int, float] | None = None,
    bound: float = np.inf,
    trust: float = 0.0,
    outside: npt.NDArray[np.bool_] | None = None,
    **settings: Any,
) -> Path:
    """A finished run that judged these of the 400 networks, in this order."""
    rows = np.asarray(rows)
    errors = ERRORS[rows] if trust else np.full(len(rows), 0.006)
    unknown = np.zeros(len(rows), bool) if outside is None else outside[rows]
    numbers = np.column_stack([LATENCY[rows], TOP1[rows], errors, unknown])
    within = np.flatnonzero(numbers[:, 0] <= min(target_ms or np.inf, bound))
    lower = numbers[:, 1] - trust * errors
    best = within[non_dominated(np.column_stack([numbers[:, 0], 1 - lower])[within])]
    if outside is not None:
        best = within[clearly_better(*numbers[within, :2].T, lower[within], unknown[within])]
    candidates = tuple(
        Candidate(
            i,
            NAMES[rows[r]],
            float(numbers[r, 1]),
            0.006,
            False,
            float(numbers[r, 0]),
            float(numbers[r, 0] * 0.95),
            float(numbers[r, 0] * 1.05),
            True,
            10**8,
            10**6,
        )
        for i, r in enumerate(best)
    )
    told = {
        "space": "mnasnet",
        "resolution_px": 224,
        "latency_model": "0123456789ab",
        "device": "pixel",
        "accuracy": "surrogate-1-00c0ffee",
        "target_ms": target_ms,
        "target": "" if target_ms is None else f"{target_ms:g}",
        "evaluations": len(rows),
        "strategy": "nsga2",
        "seed": 0,
        **({"trust": trust} if trust else {}),
        **settings,
    }
    made = RunFolder(folder, told, {"conditions": {"origin": origin}})
    done = Checkpoint({}, Evaluations.of_array(GENOMES[rows], numbers), seconds=2.0)
    made.save(done)
    front = ParetoFront(candidates, target_ms, str(told["target"]), 0.5)
    made.finish(front, SPACE, done)
    if measured:
        load(folder).with_measured(measured)
    return folder


def clearly_better(latency: Any, top1: Any, lower: Any, outside: Any) -> list[int]:
    """The front, fastest first: an extrapolated one is better by its lower end than the others are
    by their estimates."""
    front: list[int] = []
    for row in np.argsort(latency):
        others = (top1 if outside[row] else lower)[front]
        if (lower[row] > others).all():
            front.append(int(row))
    return front


def volume(losses: Any, limit_ms: float) -> float:
    return hypervolume(losses, (0.0, 0.0), (limit_ms * (1 + 1e-9), 1.0))


def losses_of(rows: Any, limit_ms: float) -> Any:
    rows = np.asarray(rows)
    rows = rows[LATENCY[rows] <= limit_ms]
    return np.column_stack([LATENCY[rows], 1 - TOP1[rows]])


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two strategies with two seeds each; the last two found nothing that the first did not."""
    at = tmp_path_factory.mktemp("runs")
    return [
        run(at / "n0", np.arange(0, 250), measured={0: 5.0, 1: 99.0}, population=40),
        run(at / "n1", np.arange(150, 400), seed=1, population=40),
        run(at / "r0", np.arange(0, 120), strategy="random"),
        run(at / "r1", np.arange(30, 150), strategy="random", seed=1),
    ]


@pytest.fixture(scope="module")
def found(four: list[Path]) -> Comparison:
    return compare(four)


def test_hypervolume_has_one_reference_and_a_joint_front(found: Comparison) -> None:
    (scale,) = found.scales
    assert scale.limit_ms == 10.0 and scale.runs == (0, 1, 2, 3)
    everything = losses_of(np.arange(400), 10.0)
    assert scale.joint == len(non_dominated(everything))
    assert scale.hypervolume == pytest.approx(volume(everything, 10.0))
    of = [np.arange(0, 250), np.arange(150, 400), np.arange(0, 120), np.arange(30, 150)]
    for row, rows in zip(found.rows, of, strict=True):
        assert row.hypervolume == pytest.approx(volume(losses_of(rows, 10.0), 10.0))
        assert row.of_joint == pytest.approx((row.hypervolume or 0) / scale.hypervolume)


def test_shares_of_the_joint_front(found: Comparison) -> None:
    inside = np.flatnonzero(LATENCY <= 10.0)
    joint = set(inside[non_dominated(losses_of(inside, 10.0))].tolist())
    spans = [range(0, 250), range(150, 400), range(0, 120), range(30, 150)]
    for i, (row, span) in enumerate(zip(found.rows, spans, strict=True)):
        others = {n for j, o in enumerate(spans) if j != i for n in o}
        assert row.joint_share == pytest.approx(len(joint & set(span)) / len(joint))
        assert row.alone_share == pytest.approx(len((joint & set(span)) - others) / len(joint))
    assert sum(r.joint_share or 0 for r in found.rows) >= 1


def test_the_best_is_within_the_runs_own_target(found: Comparison) -> None:
    within = [i for i in range(250) if LATENCY[i] <= 10.0]
    best = max(within, key=lambda i: TOP1[i])
    row = found.rows[0]
    assert (row.best_top1, row.best_ms) == (TOP1[best], LATENCY[best])
    assert (row.validated, row.met, row.evaluations, row.front) == (
        2,
        1,
        250,
        len(non_dominated(losses_of(np.arange(250), 10.0))),
    )


def test_a_course_is_of_networks_trained_as_long(
    four: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations = Loaded.evaluations

    def halved(self: Loaded) -> Evaluations:
        evaluated = evaluations(self)
        epochs = np.where(np.arange(len(evaluated)) == 3, 9.0, 1.0)
        return replace(evaluated, further={**evaluated.further, "epochs": epochs})

    monkeypatch.setattr(Loaded, "evaluations", halved)
    for course in compare(four).courses:
        seen = np.array(course.evaluations) >= 4
        assert len({share for share, at in zip(course.of_joint, seen, strict=True) if at}) == 1
        assert not np.any(np.array(course.of_joint)[~seen])


def test_courses_rise_to_where_the_front_ends(found: Comparison) -> None:
    assert [c.run for c in found.courses] == [0, 1, 2, 3]
    for course, row in zip(found.courses, found.rows, strict=True):
        assert (course.evaluations[0], course.evaluations[-1]) == (1, row.evaluations)
        assert (np.diff(course.of_joint) >= 0).all()
        assert course.of_joint[-1] == pytest.approx(row.of_joint)
    course = found.courses[0]
    half = len(course.evaluations) // 2
    seen = losses_of(np.arange(course.evaluations[half]), 10.0)
    assert course.of_joint[half] == pytest.approx(volume(seen, 10.0) / found.scales[0].hypervolume)


def test_seeds_have_a_mean(found: Comparison) -> None:
    assert [(m.label, m.runs) for m in found.means] == [
        ("nsga2", ("n0", "n1")),
        ("random", ("r0", "r1")),
    ]
    volumes = [r.hypervolume or 0 for r in found.rows]
    assert found.means[0].hypervolume == pytest.approx(np.mean(volumes[:2]))
    assert found.means[1].hypervolume_sd == pytest.approx(np.std(volumes[2:], ddof=1))
    kinds = {s.name: s.kind for s in found.settings}
    assert kinds["strategy"] == kinds["seed"] == kinds["evaluations"] == "differs"
    assert kinds["population"] == "some" and kinds["device"] == "same"


def test_labels_tell_equal_strategies_apart(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(100), population=40)
    b = run(tmp_path / "b", range(100), population=80, target_ms=9.5)
    told = compare([a, b])
    assert [m.label for m in told.means] == [
        "nsga2, target 10 ms, population 40",
        "nsga2, target 9.5 ms, population 80",
    ]
    assert len(set(colours(told))) == 2


def test_figures(found: Comparison) -> None:
    hues = colours(found)
    assert hues[0] == hues[1] != hues[2] == hues[3]
    figure = fronts_figure(found, 0)
    *fronts, measured, target = figure.data
    assert len(fronts) == 4
    assert {t.marker.symbol for t in fronts} == {"circle-open"}
    assert [t.showlegend for t in fronts] == [True, False, True, False]
    assert sum(len(t.x) for t in fronts) == len(found.spots)
    assert measured.marker.symbol in (None, "circle") and list(measured.x) == [5.0, 99.0]
    assert measured.name == "n0, measured" and "target, 10.00 ms" in target.name
    figure = courses_figure(found, 0)
    assert len(figure.data) == 4 + 2
    mean = figure.data[4]
    assert mean.name == "nsga2, mean of 2 seeds" and mean.line.color == hues[0]
    assert mean.y[-1] == pytest.approx(100 * (found.means[0].of_joint or 0))
    assert "%" in figure.layout.yaxis.title.text


def test_seeds_of_one_strategy_have_a_colour_each(four: list[Path]) -> None:
    told = compare(four[:2])
    assert len(set(colours(told))) == 2
    assert [t.name for t in courses_figure(told, 0).data] == ["n0", "n1"]


def test_other_targets_are_held_to_the_tightest(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(200), target_ms=9.0)
    b = run(tmp_path / "b", range(200), target_ms=6.0)
    c = run(tmp_path / "c", range(100), target_ms=None)
    told = compare([a, b, c])
    assert told.scales[0].limit_ms == 6.0
    assert told.rows[0].hypervolume == pytest.approx(told.rows[1].hypervolume)
    assert (told.rows[0].best_ms or 0) > 6.0
    words = " ".join(notes(told))
    assert "targets differ (a: 9.00 ms, b: 6.00 ms, c: none)" in words
    assert "tightest, 6.00 ms" in words
    assert "budgets differ (evaluations 200: a, b; 100: c)" in words
    assert told.rows[2].met is None


def test_without_any_target_the_slowest_judged_ends_the_box(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(50), target_ms=None)
    b = run(tmp_path / "b", range(40), target_ms=None, seed=1)
    told = compare([a, b])
    assert told.scales[0].limit_ms == LATENCY[:50].max()
    assert told.rows[0].of_joint == pytest.approx(1.0)
    assert len(fronts_figure(told, 0).data) == 2  # no line of a target


def test_one_network_is_one_though_its_digits_differ(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", range(100)), run(tmp_path / "b", range(100), seed=1)
    path = b / "run.json"
    text = json.loads(path.read_text(encoding="utf-8"))
    for row in text["front"]:
        row["latency_ms"] *= 1 - 1e-15
    path.write_text(json.dumps(undigested(text)), encoding="utf-8")
    told = compare([a, b])
    assert [r.joint_share for r in told.rows] == [1.0, 1.0]
    assert [r.alone_share for r in told.rows] == [0.0, 0.0]


def test_devices_and_models_are_never_mixed(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", range(100)), run(tmp_path / "b", range(100), seed=1)
    c = run(tmp_path / "c", range(100), device="galaxy", latency_model="ffff", origin="simulated")
    d = run(tmp_path / "d", range(100), latency_model="eeee")
    told = compare([a, c, b, d])
    assert [s.runs for s in told.scales] == [(0, 2), (1,), (3,)]
    assert [r.hypervolume is None for r in told.rows] == [False, True, False, True]
    assert {c.run for c in told.courses} == {0, 2}
    words = " ".join(notes(told))
    assert "different devices (pixel: a, b, d; galaxy: c)" in words
    assert "for pixel have different latency models (0123456789ab: a, b; eeee: d)" in words
    assert "--model" in words and "SIMULATED: no device was measured for the times of c" in words
    page, _ = write_comparison([a, c, b, d], tmp_path / "p.html")
    text = Page(page.read_text(encoding="utf-8")).text
    assert "on pixel, latency model eeee" in text and "different devices" in text


def test_other_estimators_have_other_scales(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(100))
    b = run(tmp_path / "b", range(100), accuracy="trained-2")
    told = compare([a, b])
    assert len(told.scales) == 2 and "different estimators" in " ".join(notes(told))


def test_nothing_in_common_is_refused(tmp_path: Path, four: list[Path]) -> None:
    a = run(tmp_path / "a", range(50), accuracy="trained-2", device="galaxy", latency_model="f")
    with pytest.raises(InvalidArgument, match="neither milliseconds nor top-1.*phonenas search"):
        compare([four[0], a])
    compare([four[0], a, four[1]])  # two of them share all
    with pytest.raises(InvalidArgument, match="two runs or more"):
        compare(four[:1])
    with pytest.raises(InvalidArgument, match="one run: .*n0, .*n0"):
        compare([four[0], four[0] / "." / ".." / "n0"])
    with pytest.raises(UnknownName, match="there is no run in nowhere"):
        compare([four[0], Path("nowhere")])
    text = json.loads((a / "run.json").read_text(encoding="utf-8"))
    del text["settings"]["device"]
    (a / "run.json").write_text(json.dumps(undigested(text)), encoding="utf-8")
    with pytest.raises(UnsupportedFormat, match="missing required field device"):
        compare([four[0], a])


def test_a_course_is_of_the_front_by_what_the_search_trusted(tmp_path: Path) -> None:
    told = compare([run(tmp_path / "a", range(200), trust=2.0), run(tmp_path / "b", range(100))])
    assert [c.run for c in told.courses] == [0, 1]
    course, half = told.courses[0], 100
    rows = [r for r in range(course.evaluations[half]) if LATENCY[r] <= 10.0]
    lower = np.column_stack([LATENCY[rows], 1 - (TOP1[rows] - 2.0 * ERRORS[rows])])
    front = np.array(rows)[non_dominated(lower)]
    assert set(front) != set(np.array(rows)[non_dominated(losses_of(rows, 10.0))])
    expected = volume(losses_of(front, 10.0), 10.0) / told.scales[0].hypervolume
    assert course.of_joint[half] == pytest.approx(expected)
    assert course.of_joint[-1] == pytest.approx(told.rows[0].of_joint)


def test_a_course_leaves_out_the_extrapolated_networks_that_its_front_does(tmp_path: Path) -> None:
    outside = np.arange(len(LATENCY)) % 3 > 0
    made = [
        run(tmp_path / "a", range(300), trust=2.0, outside=outside),
        run(tmp_path / "b", range(200), target_ms=8.0, trust=2.0, outside=outside, seed=1),
    ]
    told = compare(made)
    assert [c.run for c in told.courses] == [0, 1]
    for course, row in zip(told.courses, told.rows, strict=True):
        assert course.of_joint[-1] == pytest.approx(row.of_joint)
    course, half = told.courses[0], 100
    rows = np.array([r for r in range(course.evaluations[half]) if LATENCY[r] <= 10.0])
    numbers = LATENCY[rows], TOP1[rows], TOP1[rows] - 2.0 * ERRORS[rows]
    front = rows[clearly_better(*numbers, outside[rows])]
    plain = rows[non_dominated(np.column_stack([numbers[0], 1 - numbers[2]]))]
    assert set(plain) - set(front) and outside[front].any() and not outside[front].all()
    expected = volume(losses_of(front, 8.0), 8.0) / told.scales[0].hypervolume
    assert course.of_joint[half] == pytest.approx(expected)


def test_a_front_of_limits_that_are_not_recorded_has_no_course(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(100))
    b = run(tmp_path / "b", range(100), bound=6.0, limits=["macs <= 1e8"])
    c = run(tmp_path / "c", range(100), seed=1)
    (c / "checkpoint.npz").unlink()
    told = compare([a, b, c])
    assert [x.run for x in told.courses] == [0]
    words = " ".join(notes(told))
    assert "is not drawn for b, c" in words and "The limits differ" in words
    assert told.rows[2].evaluations == 100


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    a, b = run(tmp_path / "x" / "run", range(60)), run(tmp_path / "y" / "run", range(60), seed=1)
    assert [r.name for r in compare([a, b]).rows] == [str(a), str(b)]


def test_one_page_that_loads_nothing(four: list[Path], found: Comparison) -> None:
    path, told = write_comparison(four)
    assert path == four[0] / "comparison.html" and told == found
    page = Page(path.read_text(encoding="utf-8"))
    assert page.loads == []
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    best = max(found.rows, key=lambda r: r.hypervolume or 0)
    assert f"highest hypervolume has {best.name} , {best.of_joint:.1%}" in page.text
    for row in found.rows:
        assert f"{row.hypervolume:#.4g} ({row.of_joint:.1%})" in page.text
        assert f"○ {row.best_top1:.2%}" in page.text
    for words in (
        "4 runs compared",
        "device pixel, space mnasnet, target 10.00 ms",
        "1 of 2",
        "mean over seeds",
        "These differ",
        "some of the strategies have",
    ):
        assert words in page.text, words
    assert "details" in page.tags
    write_comparison(four)  # its own page is in no one's way


def test_simulated_runs_never_say_measured(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(90), origin="simulated", measured={0: 5.0})
    b = run(tmp_path / "b", range(80), origin="simulated", seed=1)
    path, told = write_comparison([a, b])
    page = Page(path.read_text(encoding="utf-8"))
    assert "SIMULATED" in page.text
    shown = page.text.replace("No device was measured for the times", "")
    assert not re.findall(r"\bmeasured\b", shown)
    assert fronts_figure(told, 0).data[2].name == "a, simulated"


def test_text_of_the_data_is_text_in_the_page(tmp_path: Path) -> None:
    a = run(tmp_path / "a", range(60), strategy=EVIL, device=EVIL, note=EVIL)
    b = run(tmp_path / "<b>b", range(60), device=EVIL, note="x")
    path, told = write_comparison([a, b])
    text = path.read_text(encoding="utf-8")
    assert EVIL not in text and html.escape(EVIL) in text
    assert Page(text).tags.count("script") == 2
    names = [t.name for t in [*fronts_figure(told, 0).data, *courses_figure(told, 0).data]]
    assert not any("<" in name for name in names)


@pytest.mark.fault(
    "Of several runs to compare some cannot be read.",
    "`One run is left out: …`, on the page too; `1 of 3 runs are left out`; exit code 1",
    "As the reason says.",
)
def test_a_run_that_cannot_be_read_costs_itself_alone(
    four: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = Path(shutil.copytree(four[0], tmp_path / "damaged"))
    (damaged / "run.json").write_text("{", encoding="utf-8")
    lost = Path(shutil.copytree(four[1], tmp_path / "lost"))
    (lost / "checkpoint.npz").write_bytes(b"no")
    (damaged / "comparison.html").unlink(missing_ok=True)
    gone = tmp_path / "gone"
    found = compare([damaged, *four[:2], gone, lost])
    assert [r.name for r in found.rows] == ["n0", "n1"]
    assert len(found.left_out) == 3
    for path, reason in zip((damaged, gone, lost), found.left_out, strict=True):
        assert str(path) in reason
    words = list(notes(found))
    assert [w.startswith("One run is left out: ") for w in words[:3]] == [True] * 3
    with pytest.raises(UnsupportedFormat, match="damaged"):
        compare([damaged, four[0]])
    with pytest.raises(UnknownName, match="there is no run in"):
        compare([gone, four[0]])

    line = ["phonenas", "report", str(damaged), *map(str, four[:2])]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert "One run is left out: " in out and "n0" in out and "written to" in out
    assert "UnsupportedFormat: 1 of 3 runs are left out: " in err and "damaged" in err
    assert not (damaged / "comparison.html").exists() and (four[0] / "comparison.html").exists()
    (four[0] / "comparison.html").unlink()


def test_the_command(
    four: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def told(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["phonenas", "report", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, None)
        return capsys.readouterr().out

    out, runs = tmp_path / "page.html", [str(p) for p in four]
    text = told(*runs, "--out", str(out))
    assert f"written to {out}" in text and out.exists()
    assert "hypervolume (of the joint)" in text and "nsga2" in text and "± " in text
    found = json.loads(told(*runs, "--out", str(out), "--json"))
    fields = {"page", "notes", "left_out", "rows", "means", "scales", "differs", "same"}
    assert set(found) == fields and found["left_out"] == []
    assert [r["name"] for r in found["rows"]] == ["n0", "n1", "r0", "r1"]
    assert found["differs"]["strategy"] == dict(
        zip(("n0", "n1", "r0", "r1"), ("nsga2", "nsga2", "random", "random"), strict=True)
    )
    assert found["same"]["device"] == "pixel"
    assert json.loads(told(runs[0], "--json")) == str(four[0] / "report.html")


def test_words_and_numbers_agree(found: Comparison, tmp_path: Path) -> None:
    document = as_json(found, tmp_path)
    cells = " ".join(cell for _, rows in tables(found) for row in rows for cell in row)
    for row in document["rows"]:
        assert f"{row['of_joint']:.1%}" in cells
    json.dumps(document, allow_nan=False)


@pytest.mark.browser
def test_a_browser_draws_it(four: list[Path], tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        servers.missing("chromium is not installed")
    path, _ = write_comparison(four, tmp_path / "page.html")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,2000",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    dom = done.stdout.split("<noscript>")[1].split("<script")[0]
    for plot in ("fronts0", "courses0"):
        assert f'id="{plot}" class="plot js-plotly-plot"' in dom
    assert len(re.findall(r'class="trace scatter', dom)) == (4 + 1 + 1) + (4 + 2)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Uncaught" in line]
    assert console == []
