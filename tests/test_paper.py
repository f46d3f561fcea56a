"""The page on the paper's claims: each section holds the figures that its function returned."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from phonenas import data, devices, latency_model, space
from phonenas.data.measurement import Measurement, Round
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model.fitting import fit_measurements
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, NotEnoughData

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
VERDICTS = ("agrees", "disagrees", "undecided with this evidence", "seen", "the reverse is seen")


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_script", ROOT / "tools" / "paper.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pytest.importorskip("torch", reason="the claims compare the controller, which needs torch")
paper: Any = _script()


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with whole networks of a simulated phone, and a model of the whole space."""
    path = tmp_path_factory.mktemp("paper") / "phonenas.db"
    mnas = space.get("mnasnet")
    rng = np.random.default_rng(0)
    networks = [mnas.decode(g) for g in mnas.sample(rng, 20)]
    with SimulatedPhone("practice") as phone, data.MeasurementStore(path) as store:
        devices.measure([devices.Subject("network", a) for a in networks], on=phone, into=store)
        wholes = store.measurements(phone.conditions, "network")

        def alone(operator: space.Operator) -> Measurement:
            ms = phone.truth_ms(operator)
            return Measurement(
                "operator", operator.key, phone.conditions, (Round((ms,)), Round((ms,)))
            )

        operators = [alone(o) for o in mnas.operators()]
        model = fit_measurements(phone.conditions, operators + wholes)
    model.save(path.with_name("phonenas.practice.model.json"))
    return path


@pytest.fixture(scope="module")
def ground(practice: Path) -> Any:
    model = latency_model.load(practice.with_name("phonenas.practice.model.json"))
    with data.MeasurementStore(practice) as store:
        taken = store.measurements(model.conditions, "network")
    return paper.Ground(model, taken, seeds=2, evaluations=160)


@pytest.fixture(scope="module")
def claims(ground: Any) -> list[Any]:
    return [claim(ground) for claim in paper.CLAIMS]


@pytest.fixture(scope="module")
def sections(ground: Any, claims: list[Any]) -> dict[str, str]:
    page = paper.page(ground, claims)
    parts = re.split(r"^## ", page, flags=re.M)
    return {"": parts[0], **{p.split("\n")[0]: p for p in parts[1:]}}


def test_every_claim_has_its_section(sections: dict[str, str], claims: list[Any]) -> None:
    assert list(sections)[1:-1] == [c.title for c in claims]
    for claim in claims:
        section = sections[claim.title]
        for part in ("**The paper says.**", "**Seen here.**", "**Evidence.**", "**Verdict.**"):
            assert section.count(part) == 1
        assert claim.verdicts and claim.evidence and claim.tables
        for what, verdict, why in claim.verdicts:
            assert verdict in VERDICTS
            assert f"- {what}: **{verdict}**; {why}." in section
            assert f"| {what} | **{verdict}** |" in sections[""]
        for _, header, rows in claim.tables:
            assert rows
            for row in rows:
                assert len(row) == len(header)
                assert f"| {' | '.join(row)} |" in section


def row_of(section: str, first: str) -> list[str]:
    """The first row of a section that begins so."""
    line = next(one for one in section.splitlines() if one.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_of_the_page_are_those_returned(
    ground: Any, sections: dict[str, str], claims: list[Any]
) -> None:
    rewards, evolution, flat, diversity, macs = (c.figures for c in claims)
    for name in ("RL, soft", "RL, hard", "evolution, soft", "evolution, hard", "random"):
        row = row_of(sections["Soft against hard reward"], name)
        told = " · ".join(f"{rewards[f'{name}: {q}_ms']:.1f}" for q in ("p5", "median", "p95"))
        assert row[1] == f"○ {told}"
        assert row[3] == f"{rewards[f'{name}: beyond']:.0%}"
        assert row[5].startswith(f"{100 * rewards[f'{name}: top1']:.2f} ±")
    for name in paper.STRATEGIES:
        row = row_of(sections["RL against evolution"], name)
        for cell, budget in zip(row[1:], (20, 40, 80, 160), strict=True):
            assert cell.startswith(f"{100 * evolution[f'{name}: {budget}']:.2f} ±")
    row = row_of(sections["Factorised against flat space"], "NSGA-II")
    assert row[2].startswith(f"{100 * flat['NSGA-II: mnasnet']:.2f} ±")
    assert row[3].startswith(f"{100 * flat['NSGA-II: mnasnet-flat']:.2f} ±")
    assert row[4].startswith(f"{100 * flat['NSGA-II: late']:+.2f} ±")
    section = sections["Layer diversity"]
    row = row_of(section, "MnasNet-A1: MBConv6 3×3 throughout")
    name = "MnasNet-A1: MBConv6 3×3 throughout"
    assert f"○ {diversity[f'{name}: ms']:.2f}" in row[1]
    assert row[2].startswith(f"{100 * diversity[f'{name}: top1']:.2f} ±")
    section = sections["MACs against latency"]
    assert f"◌ {macs['spearman']:.3f}" in section
    assert f"◌ {macs['greatest ratio']:.2f} times as long" in section


def test_figures_are_what_they_say(ground: Any, claims: list[Any]) -> None:
    rewards, evolution, _, diversity, macs = (c.figures for c in claims)
    # More budget is never worse, and of the same searches.
    for name in paper.STRATEGIES:
        tops = [evolution[f"{name}: {budget}"] for budget in (20, 40, 80, 160)]
        assert tops == sorted(tops)
    # The order under equal exponents knows no target.
    assert rewards["evolution, soft: same at twice the target"] == 1.0
    assert rewards["RL, soft: same at twice the target"] == 1.0
    run = ground.run("evolution, soft", 1)
    assert len({bytes(g) for g in run.genomes}) == len(run.genomes) == 160
    row = run.best(ground.target)
    within = run.latency_ms <= ground.target
    assert run.top1[row] == run.top1[within].max() and within[row]
    # Of a network's own variants the larger kernel and expansion are the slower ones.
    ms = [diversity[f"MnasNet-A1: {name} throughout: ms"] for name in paper.TYPES.values()]
    assert ms[0] < ms[1] < ms[3] and ms[0] < ms[2] < ms[3]
    taken = [m for m in ground.measurements if m.purpose == "profile"]
    assert macs["networks"] == len(taken) == 20
    assert macs["steered by MACs"] >= 1 - 1e-9


def test_inside_searches_never_choose_what_is_outside(ground: Any) -> None:
    for run in ground.fronts(ground.varied):
        row = run.best(10 * ground.target, inside=True)
        assert row is not None and not run.outside[row]
        found: Architecture = run.space.decode(run.genomes[row])
        assert all(b.skip == "identity" and b.expansion for b in found.blocks)


def test_a_type_throughout_keeps_layers_and_filters() -> None:
    a1 = space.zoo.network("mnasnet-a1")
    uniform = paper.throughout(a1, 6, 5)
    assert [b.repeats for b in uniform.blocks] == [b.repeats for b in a1.blocks]
    assert [b.out_channels for b in uniform.blocks] == [b.out_channels for b in a1.blocks]
    assert {(b.expansion, b.kernel, b.se_ratio) for b in uniform.blocks} == {(6, 5, 0.0)}


def test_a_skeleton_holds_the_types_throughout_and_is_evaluated_whole(ground: Any) -> None:
    a1 = space.zoo.network("mnasnet-a1")
    skeleton = paper.Skeleton("a1", a1)
    genomes = skeleton.every()
    assert len(genomes) == 6**7 == len({bytes(g) for g in genomes}) == skeleton.size
    for kind in paper.TYPES:
        assert paper.throughout(a1, *kind) in skeleton
    some = ground.evaluated(skeleton, genomes[::40_000])
    whole = [skeleton.decode(g) for g in some.genomes]
    assert np.allclose(some.latency_ms, ground.model.latency_ms(whole))
    assert np.allclose(some.top1, ground.accuracy.estimate(whole).top1)


def test_simulated_numbers_say_so(sections: dict[str, str]) -> None:
    assert "SIMULATED: no device was measured" in sections[""]
    assert "●" not in "".join(sections.values())


def test_the_command_measures_once_and_writes_the_same_page_again(
    practice: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tmp_path / "devices.toml"
    settings.write_text('[practice]\ntransport = "simulated"\naddress = "0"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(settings))
    # The first claim and the last will do, and the others' networks would take long.
    monkeypatch.setattr(paper, "CLAIMS", (paper.rewards, paper.macs))
    words = ["--db", str(practice), "--device", "practice", "--seeds", "2", "--evaluations", "120"]
    pages = []
    for turn, more in enumerate((["--measure"], [])):
        out = tmp_path / f"{turn}.md"
        paper.main([*words, *more, "--quiet", "--out", str(out)])
        pages.append(out.read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "5 of 5 are measured" in pages[0]
    assert re.search(r"^\| MobileNetV2 \| ○ [\d.]+ \([\d. to]+\) \| ◌ [\d.]+ \|", pages[0], re.M)
    with data.MeasurementStore(practice) as store:
        (conditions,) = [c for c in store.conditions("practice", "network") if c.mode == "steady"]
        taken = store.measurements(conditions, "network")
    assert sum(m.purpose == "validation" for m in taken) == 5
    assert capsys.readouterr().out.split() == [str(tmp_path / "0.md"), str(tmp_path / "1.md")]


def test_what_is_lacking_is_said(
    ground: Any, practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotEnoughData, match="with MACs needs 10 or more. Measure some:  phonenas"):
        paper.macs(paper.Ground(ground.model, ground.measurements[:3], seeds=2))
    with pytest.raises(InvalidArgument, match="got 1 and 4000"):
        paper.Ground(ground.model, seeds=1)
    for words, said in (
        (["--db", str(tmp_path / "none.db")], "StoreError: "),
        (["--db", str(practice), "--device", "local"], "NotEnoughData: "),
        (["--db", str(practice), "--device", "practice", "--target", "0"], "InvalidArgument: "),
        (["--db", str(practice), "--device", "practice", "--target", "0.001"], "Infeasible: "),
    ):
        with pytest.raises(SystemExit):
            paper.main([*words, "--quiet", "--evaluations", "100", "--out", str(tmp_path / "x.md")])
        assert capsys.readouterr().err.startswith(said)
    assert not (tmp_path / "x.md").exists()


def test_the_paper_s_own_table(practice: Path, tmp_path: Path) -> None:
    """Published: MnasNet-A1 75.2 % and 78 ms (Tan et al., table 1); the zoo counts its MACs."""
    out = tmp_path / "page.md"
    out.write_text("# A page\n\n## The paper's networks\n\nold\n\n## Last\n\nend\n")
    words = ["--db", str(practice), "--device", "practice", "--table", "--out", str(out)]
    paper.main([*words, "--quiet"])
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# A page\n\n## The paper's networks\n") and "old" not in text
    assert text.endswith("## Last\n\nend\n")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| m")]
    a1 = next(row for row in rows if row[0] == "| mnasnet-a1")
    assert a1[1:5] == ["311 M", "3.89 M", "75.2", "78"]
    assert abs(float(a1[6].rstrip("%"))) < 12 and a1[7].startswith("○ ")
    wide = next(row for row in rows if row[0] == "| mobilenet-v2 ×1.4")
    assert wide[3:5] == ["74.7", "143"]
    assert "SIMULATED" in text and "With each family left out it is" in text
    first = text
    paper.main([*words, "--quiet"])
    assert out.read_text(encoding="utf-8") == first
