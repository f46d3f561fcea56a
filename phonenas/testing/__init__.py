"""The contracts as pytest classes, for our own classes and for those of other packages.

Subclass one and give its fixture or method; pytest then runs the tests of our own on your class::

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self):
            return MyDevice("10.0.0.7")

`FakeDevice`, `FakeTransport` and `FakeRuntime` stand in for hardware; `SimulatedPhone` is a whole
phone without any, and `SimulatedTraining` gives learning curves without training.
"""

from __future__ import annotations

from phonenas.space.errors import MissingExtra, install

try:
    import pytest  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "the contract classes of phonenas.testing need pytest, which cannot be imported here. "
        f"Install it:  {install('test')}"
    ) from error

from phonenas.devices.simulated import SimulatedPhone

from .device import DeviceContract, FakeDevice
from .estimator import EstimatorContract, SimulatedTraining
from .runtime import FakeRuntime, RuntimeContract
from .space import SpaceContract
from .store import StoreContract
from .strategy import StrategyContract
from .transport import FakeTransport, TransportContract
from .workers import WorkersContract

__all__ = [
    "DeviceContract",
    "EstimatorContract",
    "FakeDevice",
    "FakeRuntime",
    "FakeTransport",
    "RuntimeContract",
    "SimulatedPhone",
    "SimulatedTraining",
    "SpaceContract",
    "StoreContract",
    "StrategyContract",
    "TransportContract",
    "WorkersContract",
]
