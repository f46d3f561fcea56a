"""Each command's document of --json, beside the schema that the command prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from documents import check_document, named

from phonenas import space as spaces
from phonenas.cli.documents import DOCUMENTS, schema_of
from tests.cli.test_app import Run, run
from tests.cli.test_doors import commands
from tests.cli.test_precisions import NETWORK
from tests.cli.test_several_devices import made, there

__all__ = ["made", "run", "there"]  # fixtures

PIXEL1 = "pixel1/tflite/cpu-1big/float32"
SHARED = Path(__file__).resolve().parents[3] / "shared/data"


def test_every_command_has_a_schema() -> None:
    every = {" ".join(words): command for words, command in commands()}
    assert len(every) > 30 and {*every} == {*DOCUMENTS}
    error = {"error": {"code": "UnknownName", "message": "none", "exit_code": 2}}
    for name, command in every.items():
        assert any("--json-schema" in p.opts for p in command.params), name
        schema = schema_of(name)
        assert schema["title"] == f"phonenas {name} --json"
        known = jsonschema.Draft202012Validator(schema)
        assert known.is_valid(error) and not known.is_valid({}), name


def test_a_command_prints_its_schema(run: Run) -> None:
    for words in (("export",), ("benchmark", "search")):
        code, out, err = run(*words, "--json-schema")  # its arguments are not asked for
        assert (code, err) == (0, "")
        assert json.loads(out) == schema_of(" ".join(words))
    code, _, err = run("show", "mnasnet-a1", "--json-schemas")
    assert code == 2 and "--json-schema" in err


def test_a_schema_says_what_is_always_there(run: Run) -> None:
    schema = json.loads(run("predict", "--json-schema")[1])
    row = schema["$defs"]["PredictedNetwork"]
    assert row["properties"]["latency_ms"] == {"type": "number"}
    assert "low_ms" in row["required"] and "within_target" not in row["required"]
    document = run.json("predict", "mnasnet-a1", "--device", PIXEL1)
    jsonschema.validate(document, schema)
    del document[0]["low_ms"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    with pytest.raises(AssertionError, match="mystery"):
        check_document(
            ("predict",),
            [{**run.json("predict", "mnasnet-a1", "--device", PIXEL1)[0], "mystery": 1}],
        )


def write_tables() -> None:
    """Images of two classes, tables of genes, latencies to import, and trained networks."""
    rng = np.random.default_rng(0)
    y = np.arange(50) % 2
    x = (rng.integers(0, 100, (50, 16, 16, 3)) + 120 * y[:, None, None, None]).astype(np.uint8)
    np.savez("images.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    genes = rng.integers(0, 4, (200, 4))
    table = pd.DataFrame(genes, columns=["g1", "g2", "g3", "g4"]).drop_duplicates()
    for name in ("cost", "other", "third"):
        table[name] = 1 + table[["g1", "g2", "g3", "g4"]] @ rng.uniform(1, 2, 4)
    table["quality"] = table.cost + rng.normal(0, 0.5, len(table))
    table.to_csv("genes.csv", index=False)
    drawn = spaces.get("accel-nasbench").sample(rng, 60)
    space = spaces.get("accel-nasbench")
    trained = pd.DataFrame(drawn, columns=list(space.decisions)).astype(object)
    for gene, options in space.decisions.items():
        trained[gene] = [options[i] for i in trained[gene]]
    trained["top1"] = rng.uniform(60, 75, len(trained))
    trained.to_csv("trained.csv", index=False)
    names = [str(space.decode(row)) for row in drawn]
    pd.DataFrame({"network": names, "top1": trained.top1}).to_csv("results.csv", index=False)
    Path("own.csv").write_text(
        "kind,subject,latency_ms,origin\nnetwork,mnasnet-a1,12,\nnetwork,mnasnet-b1,3,simulated\n"
        "operator,mbconv6_k5_s2_se20_14x14x80_112,1.5,\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("there", "fast")
def test_every_command_prints_what_its_schema_says(run: Run) -> None:
    for name in DOCUMENTS:
        jsonschema.Draft202012Validator.check_schema(schema_of(name))
    write_tables()
    at, two = "--db s.db --quiet", "--device big --device little"
    space = "--space tests.cli.test_precisions:OneBlock"
    search = f"search {space} --evaluations 36 {at}"
    small = "--recipe small --epochs 1 --batch 10 --data images.npz --quiet"
    train = "train 'stemstride1 r1_k3_s22_e1_i8_o8 r1_k3_s22_e2_i8_o16 head32' --resolution 16"
    profile = f"profile {space} --networks 20 --network '{NETWORK}' {at}"
    genes = "genes.csv --genes 'g*'"
    strategies = f"benchmark search {genes} --maximize quality --minimize cost --seeds 2 --quiet"
    lines = [
        "space mnasnet",
        "show mnasnet-a1",
        "show resnet-50",
        f"export-network '{NETWORK}' --out n.onnx",
        "show n.onnx",
        "devices",
        "devices --ready",
        f"{profile} --device big",
        f"{profile} {two}",
        "fit --device big --db s.db",
        "fit --device little --db s.db",
        f"check --device big --operators 3 --networks 2 {at}",
        f"predict '{NETWORK}' --device big --db s.db --explain --target 5",
        f"predict resnet-50 n.onnx --device {PIXEL1} --explain",
        "trace n.onnx --device local --runs 3 --out t.json",
        f"compare '{NETWORK}' mnasnet-a1 {two} {at} --out c.html --csv c.csv",
        f"compare mnasnet-a1 mobilenet-v2 resnet-50 --device {PIXEL1}",
        f"{search} --device big --target 9 --out a",
        f"{search} --device big --seed 1 --out b",
        f"{search} {two} --target big=9 --target little=40 --out r",
        f"{search} {two} --out free",
        "show a",
        "show free",
        "show r --all --csv r.csv --parquet r.parquet",
        f"validate a --device big --top 2 {at}",
        f"validate r --device little --top 2 --rounds 2 {at}",
        "report a",
        "report a b",
        "report a free",
        "export s.csv --db s.db",
        "import csv own.csv --device old --db old.db",
        "accuracy mnasnet-a1",
        "accuracy mnasnet-small --accuracy zero_cost --resolution 32",
        f"{train} --device cpu {small} --out t",
        f"{train} --device cpu {small}",
        f"promote a --top 1 --torch-device cpu {small} --db s.db",
        f"promote a --top 1 --torch-device cpu {small} --db s.db --device big",
        f"supernet {space} --resolution 32 --epochs 1 --batch 10 --data images.npz --out u "
        f"--read '{NETWORK}' --quiet",
        f"benchmark surrogate {genes} --target cost --train 60 --seeds 1",
        f"benchmark transfer {genes} --target cost --source other --source third "
        "--source-samples 100 --draws 2",
        f"{strategies} --strategy random --evaluations 40",
        f"{strategies} --strategy random --evaluations 20 --model-share 0.5 --limits 2",
        "fit-accuracy results.csv --out mine.json",
        "benchmark accuracy trained.csv --space accel-nasbench --genes 'block*' --target top1 "
        "--networks 20 --draws 2 --estimator surrogate",
        f"init study --yes --device {PIXEL1} --target 80",
        "run --commands",
        "init devices --yes --ssh me@board --out new.toml",
        "examples",
    ]
    published = [
        f"benchmark networks {SHARED}/edge_torch_cnn_ops_gpu.csv {SHARED}/edge_torch_cnn_e2e.csv "
        "--device 'pixel4|gpu|float' --test 'mobilenet*'",
        f"benchmark top1 {SHARED}/timm_imagenet.csv {SHARED}/published_networks.csv "
        f"--short {SHARED}/accel_nasbench.csv",
    ]
    for line in [*lines, *published * SHARED.is_dir()]:
        run.json(*shlex.split(line))
    # Faults that it finds are in the document, too.
    check_document(("doctor",), json.loads(run("doctor", "--db", "s.db", "--json")[1]))
    study = Path("study.toml").read_text().replace("evaluations = 8000", "evaluations = 60")
    Path("study.toml").write_text(study)
    assert all(s["result"] is not None for s in run.json("run", "--quiet")["steps"])
    done = {named(tuple(shlex.split(line))) for line in [*lines, *published]}
    assert {*done, "doctor", "serve"} == {*DOCUMENTS}  # serve: tests/cli/live/test_live.py
