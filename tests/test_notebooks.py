"""The notebooks of the documentation, run from their first cell to their last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"


def read(name: str) -> Any:
    import nbformat

    return nbformat.read(NOTEBOOKS / name, as_version=4)


def run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the cells gave, as Jupyter keeps it."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(name)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources)
    client.execute(env=dict(os.environ))
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def shown(outputs: list[Any], kind: str) -> list[str]:
    return [o["data"][kind] for o in outputs if kind in o.get("data", {})]


def test_notebooks_are_kept_without_output() -> None:
    """So that no figure stands in them that nobody's computer gave."""
    names = sorted(p.name for p in NOTEBOOKS.glob("*.ipynb"))
    assert names == ["ready_phone.ipynb", "this_computer.ipynb"]
    for name in names:
        cells = [c for c in read(name).cells if c.cell_type == "code"]
        assert cells and not any(c.outputs or c.execution_count for c in cells)


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_a_front_for_a_ready_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = run("ready_phone.ipynb", tmp_path, monkeypatch)
    html = shown(outputs, "text/html")
    assert sum(h.startswith("<svg") for h in html) == 2  # the first network and the best
    assert any("top1_error" in h and "<table" in h for h in html)
    assert any("PUBLIC: no device was measured" in t for t in shown(outputs, "text/plain"))


@pytest.mark.notebook
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_this_computer_is_measured_and_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = run("this_computer.ipynb", tmp_path, monkeypatch)
    tables = [h for h in shown(outputs, "text/html") if "measured_ms" in h]
    assert tables and tables[-1].count("<tr") == 1 + 3  # the head, and a row a network
    printed = "".join(
        o["text"] for o in outputs if o.output_type == "stream" and o.name == "stdout"
    )
    assert "●" in printed and "○" in printed
