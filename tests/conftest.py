"""What several test files share: a small space, a store with a profile, a fitted model."""

from __future__ import annotations

import builtins
import gc
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fakes import FakeDevice, TinySpace
from hypothesis import HealthCheck, settings
from quoted import not_told

from phonenas import data, devices, latency_model, search
from phonenas.data import files
from phonenas.latency_model import outliers
from phonenas.space import Operator
from phonenas.space.errors import PhonenasError

# Tests never time: neither an example nor how long it takes to make one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Thousands of tests and modules stay till the end: to look through them again and again, for what
# nothing refers to any more, is a tenth of the suite's time.
gc.disable()


def pytest_collection_finish() -> None:
    """What was collected is no garbage; what tests leave is looked for at longer intervals."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def patient() -> None:
    """Two test files that measure this computer at once wait for each other."""
    files._LOCK_WAIT_S = 200.0


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Only a computer that loses its power shows whether a file was on its disk: no test does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def parsers_are_built_once() -> Iterator[None]:
    """A program builds the parsers of all commands once; here one process runs hundreds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_user() -> None:
    """No variable of whoever runs the tests chooses a store or devices for them."""
    for name in ("PHONENAS_DB", "PHONENAS_DEVICES"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command run in this process, --quiet among its options, changes no later test's log."""
    logger = logging.getLogger("phonenas")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers = handlers


@pytest.fixture(autouse=True)
def faults_are_told(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What the mark `fault` of a test quotes is printed, or is an error's text, meanwhile."""
    marks = list(request.node.iter_markers("fault"))
    if not marks:
        yield
        return
    heard: list[str] = []
    plain_str, plain_print = PhonenasError.__str__, builtins.print

    def told(error: PhonenasError) -> str:
        heard.append(plain_str(error))
        return heard[-1]

    def printed(*values: Any, **more: Any) -> None:
        heard.append(" ".join(map(str, values)))
        plain_print(*values, **more)

    monkeypatch.setattr(PhonenasError, "__str__", told)
    monkeypatch.setattr(builtins, "print", printed)
    yield
    several = hasattr(request.node, "callspec")
    for mark in marks:
        missing = not_told(mark.args[1], heard, every=not several)
        assert not missing, f"not told: {missing}; told: {heard}"


@pytest.fixture(scope="session")
def tiny() -> TinySpace:
    return TinySpace(resolution=32)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of one subject need not lie apart where there is no machine to drift."""

    from dataclasses import replace

    from phonenas.devices.measuring import profiling
    from phonenas.search.validation import validate

    quick = replace(profiling.Protocol(), apart_s=0.0)
    monkeypatch.setattr(profiling, "Protocol", lambda **more: replace(quick, **more))
    monkeypatch.setattr(validate, "Protocol", lambda **more: replace(quick, **more))
    monkeypatch.setattr(devices, "Protocol", lambda **more: replace(quick, **more))
    monkeypatch.setattr(devices, "QUICK", replace(devices.QUICK, apart_s=0.0))


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a whole profile of the fake device on the tiny space."""
    from dataclasses import replace

    from phonenas.devices.measuring import profiling

    path = tmp_path_factory.mktemp("store") / "phonenas.db"
    protocol = replace(profiling.Protocol(), apart_s=0.0)
    subjects = profiling.Selection().subjects(TinySpace(resolution=32), 30, seed=0)
    with data.MeasurementStore(path) as store, FakeDevice() as device:
        devices.measure(subjects, on=device, into=store, protocol=protocol)
    return path


@pytest.fixture(scope="session", autouse=True)
def one_fit_of_equal_operators() -> Iterator[None]:
    """Most tests measure the same operators, and a fit of their regressor takes a second.

    Equal times give an equal regressor: test_regressor.py and test_model.py examine that.
    """
    from phonenas.latency_model import fitting

    known: dict[tuple[Any, ...], Any] = {}

    def once(ms: Mapping[Operator, float]) -> Any:
        key = tuple(ms.items())  # the order of the rows enters the fit
        if key not in known:
            known[key] = outliers.fitted(ms)
        regressor, odd = known[key]
        return regressor, list(odd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fitted", once)
        yield


@pytest.fixture(scope="session")
def fitted(profiled: Path) -> latency_model.LatencyModel:
    with data.MeasurementStore(profiled) as store:
        return latency_model.fit(store, "fake")


@pytest.fixture(scope="session")
def surrogate() -> search.accuracy.Surrogate:
    return search.accuracy.Surrogate()


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses: this checkout importable, one thread."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
