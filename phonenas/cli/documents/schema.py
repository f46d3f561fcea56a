"""The JSON Schema of what each command prints with --json, made from the types of its documents."""

from __future__ import annotations

from typing import Any

import msgspec

from phonenas.space.errors import UnknownName, nearest

from . import benchmarks, measured, networks, project, runs, training

__all__ = ["DOCUMENTS", "schema_of"]

#: The documents of each command; one of them is printed.
DOCUMENTS: dict[str, tuple[Any, ...]] = {
    "space": (networks.SpaceShown,),
    "show": (networks.NetworkShown, networks.FileShown, networks.RunShown),
    "export-network": (networks.NetworkWritten,),
    "devices": (measured.Devices, measured.ReadyPhones),
    "profile": (measured.Profiled, measured.ProfiledDevices),
    "import": (measured.Imported,),
    "fit": (measured.Fitted,),
    "check": (measured.Checked,),
    "predict": (list[measured.PredictedNetwork],),
    "trace": (measured.Traced,),
    "compare": (networks.ComparedNetworks,),
    "search": (runs.Searched,),
    "validate": (runs.Validated,),
    "report": (str, runs.ComparedRuns),
    "accuracy": (list[networks.EstimatedNetwork],),
    "fit-accuracy": (training.FittedAccuracy,),
    "train": (training.TrainedNetwork,),
    "supernet": (training.TrainedSupernet,),
    "promote": (runs.PromotedNetworks,),
    "export": (measured.Exported,),
    "serve": (project.Served,),
    "run": (project.StudyDone, list[str]),
    "init": (project.DevicesWritten, project.StudyWritten),
    "doctor": (project.Findings,),
    "examples": (project.Examples,),
    "benchmark surrogate": (benchmarks.SurrogateBenchmark,),
    "benchmark transfer": (benchmarks.TransferBenchmark,),
    "benchmark networks": (benchmarks.NetworksBenchmark,),
    "benchmark search": (benchmarks.SearchBenchmark, benchmarks.RegretBenchmark),
    "benchmark accuracy": (benchmarks.AccuracyBenchmark,),
    "benchmark top1": (benchmarks.Top1Benchmark,),
}


class _Code(msgspec.Struct, kw_only=True):
    """An error; its code is listed in docs/faults.md."""

    code: str
    message: str
    exit_code: int


class Failed(msgspec.Struct, kw_only=True):
    """The document of a command that could not print its own."""

    error: _Code


def schema_of(command: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what a command prints with --json.

    Args:
        command: Its words without `phonenas`: "search", "benchmark search".
    Raises:
        UnknownName: There is no such command.
    """
    if command not in DOCUMENTS:
        raise UnknownName(f"no command is called {command!r}. {nearest(command, DOCUMENTS)}")
    kinds = (*DOCUMENTS[command], Failed)
    schemas, parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for part in parts.values():
        # What an object always has, has no default here, though its class may have one.
        for name, value in part.get("properties", {}).items():
            if "default" in value:
                del value["default"]
                part["required"] = [*part.get("required", ()), name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"phonenas {command} --json",
        "anyOf": [*schemas],
        "$defs": parts,
    }
