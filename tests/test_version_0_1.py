"""Files that phonenas 0.1 wrote: read with all that they hold, or refused with the command to run.

`tests/version_0_1` is what commit c29f4d6 made on the simulated phone of seed 1 (the store as its
SQL text, and without evaluations.parquet, which nothing reads):

    phonenas profile --device sim --space accel-nasbench --operators 60 --networks 12
        --network mobilenet-v2 --quick
    phonenas fit --device sim
    phonenas search --device sim --space accel-nasbench --target 30 --evaluations 120 --seed 0
        --out run
    phonenas validate run --device sim --top 2
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from phonenas import search
from phonenas.data import MeasurementStore
from phonenas.report import read_validation, write_report
from phonenas.space import zoo
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

MADE = Path(__file__).with_name("version_0_1")
MOBILENET_MS = 26.5193  # measured, as its profile printed; predicted it was 25.22 to 27.45 ms


@pytest.fixture
def there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of then: a store, its model, and a run that was validated."""
    monkeypatch.undo()  # the devices are those of devices.toml
    monkeypatch.chdir(tmp_path)
    run.monkeypatch = monkeypatch
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "devices.toml"))
    Path("devices.toml").write_text('[sim]\ntransport = "simulated"\naddress = "1"\n')
    with closing(sqlite3.connect("phonenas.db")) as connection:
        connection.executescript(gzip.decompress((MADE / "phonenas.sql.gz").read_bytes()).decode())
    shutil.copy(MADE / "model.json", "phonenas.sim.model.json")
    Path("run").mkdir()
    for name in ("run.json", "checkpoint.npz", "log.csv", "validation.json"):
        shutil.copy(MADE / name, "run")
    return tmp_path


def held() -> dict[str, list[tuple[object, ...]]]:
    """What the tables of the store hold, whichever version they have."""
    asked = {
        "rejections": "SELECT conditions, count(*), count(DISTINCT subject), max(at) "
        "FROM rejection GROUP BY 1 ORDER BY 1",
        "measurements": "SELECT conditions, kind, purpose, complete, given_up, count(*), sum(id), "
        "sum(series) FROM measurement GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
        "rounds": "SELECT count(*), sum(number), sum(measurement), sum(preempted), max(at) "
        "FROM round",
        "samples": "SELECT count(*), sum(value) FROM round, json_each(samples_ms)",
        "sentinel": "SELECT count(*), sum(value) FROM round, json_each(sentinel_ms)",
    }
    with closing(sqlite3.connect("phonenas.db")) as connection:
        return {name: connection.execute(words).fetchall() for name, words in asked.items()}


def test_a_store_is_migrated_and_loses_nothing(there: Path) -> None:
    before = held()
    assert sum(count for _, count, *_ in before["rejections"]) == 9  # type: ignore[misc]
    with closing(sqlite3.connect("phonenas.db")) as connection:
        rows = connection.execute(
            "SELECT m.conditions, m.kind, count(DISTINCT m.id), count(*) FROM measurement m "
            "JOIN round r ON r.measurement = m.id WHERE m.complete GROUP BY 1, 2"
        ).fetchall()
        of_mobilenet = connection.execute(
            "SELECT r.samples_ms FROM round r JOIN measurement m ON r.measurement = m.id "
            "JOIN conditions c ON c.digest = m.conditions WHERE m.subject = ? "
            "AND c.fields LIKE '%\"steady\"%'",
            (str(zoo.network("mobilenet-v2")),),
        ).fetchall()
    expected = {(conditions, kind): (n, rounds) for conditions, kind, n, rounds in rows}
    assert len(expected) >= 2
    for _ in range(2):  # the second time it is of the new version
        with MeasurementStore("phonenas.db") as store:
            found = {
                (c.digest, kind): (len(known), sum(len(m.rounds) for m in known))
                for c in store.conditions("sim")
                for kind in ("operator", "network")
                if (known := store.measurements(c, kind))
            }
            steady = next(c for c in store.conditions("sim") if c.mode == "steady")
            subject = str(zoo.network("mobilenet-v2"))
            own = next(m for m in store.measurements(steady, "network") if m.subject == subject)
        assert found == expected
        medians = [float(np.median(json.loads(samples))) for (samples,) in of_mobilenet]
        assert sorted(own.medians_ms) == pytest.approx(sorted(medians))
        assert own.latency_ms == pytest.approx(MOBILENET_MS, rel=0.02)
        assert held() == {k: [pytest.approx(row) for row in rows] for k, rows in before.items()}
    with closing(sqlite3.connect("phonenas.db")) as connection:
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    assert meta["version"] == "2" and re.fullmatch(r"[0-9a-f]{12}", meta["store"])


def test_a_run_is_read_as_it_was(there: Path) -> None:
    run = search.load("run")
    first, best = run.front.candidates[0], max(run.front, key=lambda c: c.top1)
    assert (first.latency_ms, first.top1) == (11.680961228070668, 0.5629606271315585)
    assert first.block_args.startswith("r2_k3_s11_e1_i32_o16 r3_k5_s22_e1_i16_o24 ")
    assert run.front.hypervolume == 0.37413774292426905 and run.front.target_ms == 30
    assert run.front.origin == "simulated" and run.precision == "float32"
    evaluated = run.to_frame()
    assert len(evaluated) == 120 and evaluated.id.notna().sum() == len(run.front)
    assert evaluated[evaluated.id == first.id].latency_ms.item() == first.latency_ms
    assert best.latency_ms <= 30
    lines = Path("run/log.csv").read_text(encoding="utf-8").splitlines()
    assert len(run.log()) == len(lines) - 1 == 21
    validation = read_validation(Path("run"))
    assert validation is not None
    assert {v["id"]: v["measured_ms"] for v in validation["networks"]} == {
        9: 22.707317884503944,
        11: 24.758729238612695,
    }
    page = write_report(Path("run")).read_text(encoding="utf-8")
    assert "SIMULATED" in page and "22.71" in page


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_model_is_refused_and_another_is_fitted_on_the_store(run: Run, there: Path) -> None:
    code, out, err = run("predict", "mobilenet-v2", "--device", "sim")
    assert (code, out) == (1, "") and "has version 2" in err
    (command,) = re.findall(r"  (phonenas fit.*)", err)
    code, _, err = run(*shlex.split(command.strip())[1:])
    assert code == 0, err
    (row,) = run.json("predict", "mobilenet-v2", "--device", "sim")
    assert row["low_ms"] < MOBILENET_MS < row["high_ms"]
    # A validation goes on with what the store holds; the search needs the model that it had.
    found = run.json("validate", "run", "--device", "sim", "--top", "2", "--quiet")
    assert found["reused"] == 2 and {v["id"] for v in found["networks"]} == {9, 11}
    words = ("search", "--device", "sim", "--space", "accel-nasbench", "--target", "30")
    code, _, err = run(*words, "--evaluations", "120", "--out", "run", "--quiet")
    assert code == 2 and "latency_model was '640eace09f5e'" in err and "--out" in err
    assert run.json(*words, "--evaluations", "120", "--out", "new", "--quiet")["evaluations"] == 120
