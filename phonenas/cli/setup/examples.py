"""The command examples: short worked commands for each task."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from phonenas.space.errors import UnknownName, nearest

from ..options import Output, command
from ..output import table

__all__ = ["EXAMPLES", "examples"]

#: By task: what it is, and its commands in order, each with what it does. tests/test_house.py reads
#: each command as the command line does.
EXAMPLES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "ready": (
        "A front for a phone that is not here",
        (
            ("phonenas devices --ready", "phones that others measured"),
            (
                "phonenas search --device pixel4/tflite/cpu-1large/float32 --target 30 "
                "--out runs/pixel4",
                "networks of at most 30 ms there",
            ),
            ("phonenas report runs/pixel4", "writes runs/pixel4/report.html"),
        ),
    ),
    "study": (
        "All steps from one file",
        (
            ("phonenas init study", "writes study.toml by asking"),
            ("phonenas run study.toml --commands", "the command of each step"),
            ("phonenas run study.toml", "does them; goes on where it was stopped"),
            ("phonenas serve runs/study", "the same, watched in a browser"),
        ),
    ),
    "device": (
        "A device of your own",
        (
            ("phonenas init", "writes devices.toml by asking"),
            ("phonenas devices", "what can be measured, and what to do where not"),
            ("phonenas profile --device pixel6 --network mobilenet-v2 --quick", "a first look"),
        ),
    ),
    "model": (
        "A latency model",
        (
            ("phonenas profile --space mnasnet --networks 30", "measures this computer"),
            ("phonenas fit", "the model, and its score on networks left out of it"),
            ("phonenas check", "is it still right?"),
            ("phonenas predict mobilenet-v2 --explain", "where the milliseconds go"),
            ("phonenas compare mobilenet-v2 mnasnet-a1", "side by side"),
        ),
    ),
    "few": (
        "A latency model from few measurements",
        (
            ("phonenas profile --space mnasnet --operators 60", "the most informative ones"),
            (
                "phonenas profile --device pixel7 --space mnasnet --like pixel6 --measurements 30",
                "beside a device that is measured in full",
            ),
            ("phonenas fit --device pixel7 --like pixel6", "its model, from the other's"),
        ),
    ),
    "search": (
        "A search, and its best networks measured",
        (
            ("phonenas search --target 8 --out runs/mine", "at most 8 ms"),
            (
                "phonenas search --target 8 --limit 'params<=5e6' --also macs --out runs/small",
                "with a limit, and a third objective",
            ),
            ("phonenas show runs/mine", "the front, best reward first"),
            ("phonenas validate runs/mine --top 5", "predicted beside measured"),
            ("phonenas report runs/mine runs/small", "both on one page"),
            ("phonenas export-network runs/mine:0 --out candidate.onnx", "one of them as a file"),
        ),
    ),
    "space": (
        "A search space of your own, as a TOML file",
        (
            ("phonenas space my_space.toml --genes", "its size and its choices"),
            ("phonenas profile --space my_space.toml", "measures its operators"),
            ("phonenas search --space my_space.toml --target 8 --out runs/own", "searches in it"),
        ),
    ),
    "int8": (
        "Networks in int8",
        (
            ("phonenas profile --space mnasnet --precision int8", "measures operators in int8"),
            ("phonenas fit --precision int8", "a model of its own"),
            ("phonenas search --precision int8 --target 6 --out runs/int8", "searches with it"),
        ),
    ),
    "file": (
        "A model file, or a torch module",
        (
            ("phonenas profile --kernels 500", "kernels, to predict any ONNX file"),
            ("phonenas predict model.onnx --explain", "its latency, by node"),
            ("phonenas trace model.onnx --out trace.json", "its nodes by the runtime's profiler"),
        ),
    ),
    "train": (
        "Accuracy on your own images",
        (
            ("phonenas train mnasnet-a1 --data images --out trained", "one network in full"),
            (
                "phonenas search --accuracy training:proxy --data images --target 8 "
                "--out runs/trained",
                "each candidate is trained for a short time",
            ),
            ("phonenas promote runs/trained --data images --top 5", "the best, in full"),
        ),
    ),
    "trouble": (
        "Something does not work",
        (
            ("phonenas doctor", "what is installed, reached and readable"),
            ("phonenas devices", "which devices answer, and what to do where one does not"),
        ),
    ),
}


@command
def examples(
    output: Output,
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help=f"{', '.join(EXAMPLES)}; default: all.")
    ] = None,
) -> None:
    """Print short worked commands for each task, to be copied."""
    if task is not None and task not in EXAMPLES:
        raise UnknownName(f"there are no examples of {task[:80]!r}. {nearest(task, EXAMPLES)}")
    chosen = {name: EXAMPLES[name] for name in EXAMPLES if task in (None, name)}
    result: list[dict[str, Any]] = [
        {
            "task": name,
            "title": title,
            "commands": [{"command": line, "does": does} for line, does in lines],
        }
        for name, (title, lines) in chosen.items()
    ]

    def text() -> str:
        parts = []
        for name, (title, lines) in chosen.items():
            whole = table([f"{title} ({name})", ""], [[line, f"# {does}"] for line, does in lines])
            parts.append(whole)
        return "\n\n".join(parts)

    output.print(result, text)
