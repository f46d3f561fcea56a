"""Names that version 0.1 had still import."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("phonenas.data.importers", "Holes"),
        ("phonenas.data.importers", "holes"),
        ("phonenas.search.controller", "Controller"),
        ("phonenas.search.surrogate_assisted", "SurrogateAssisted"),
        ("phonenas.search.weighted_product", "WeightedProduct"),
        ("phonenas.space.accel_nasbench", "AccelNASBench"),
        ("phonenas.space.mnasnet_flat", "MnasNetFlat"),
        ("phonenas.space.nasbench_macro", "NASBenchMacro"),
        ("phonenas.space.proxylessnas", "ProxylessNAS"),
    ],
)
def test_a_name_of_version_0_1_imports(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))
