"""Peak memory of networks that never ran: good where it was seen to be, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import space
from phonenas.data import Conditions, Measurement, Round
from phonenas.data.measurement import Startup
from phonenas.latency_model.peak_memory import fit_peak_memory
from phonenas.space import zoo
from phonenas.space.errors import NotEnoughData

HERE = Conditions("phone", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none")
MNAS = space.get("mnasnet", 64)


def measured(peaks_of: Callable[[space.Architecture], float], n: int = 24) -> list[Measurement]:
    """Random networks whose process takes what a function says of each."""
    networks = [MNAS.decode(g) for g in MNAS.sample(np.random.default_rng(5), n)]
    return [
        Measurement(
            "network",
            str(a),
            HERE,
            (Round((1.0,)), Round((1.0,), startup=Startup(peak_bytes=int(peaks_of(a))))),
        )
        for a in networks
    ]


def truth(network: space.Architecture) -> float:
    """60 MB, the weights two and a half times, the activations twice, and what no line has."""
    activations = max(o.peak_activations for o in network.operators())
    largest = max(o.params for o in network.operators())
    return 60e6 + 10 * network.params + 8 * activations + 1.5 * largest


def test_networks_that_were_not_measured_are_predicted() -> None:
    model = fit_peak_memory(HERE, measured(truth))
    networks = [MNAS.decode(g) for g in MNAS.sample(np.random.default_rng(6), 50)]
    expected = np.array([truth(a) for a in networks])
    assert model.predict(networks) == pytest.approx(expected, rel=0.03)
    tiny = TinySpace(resolution=32)
    genomes = tiny.sample(np.random.default_rng(7), 9)
    by_genome = model.on(tiny)(genomes)
    assert by_genome == pytest.approx(model.predict([tiny.decode(g) for g in genomes]))
    assert 0 < model.mape < 0.03 and model.networks == 24
    assert 2.2 < model.per_weight < 3.5
    assert model.digest == fit_peak_memory(HERE, measured(truth)).digest
    assert model.digest != replace(model, per_weight=2.0).digest
    assert str(model).startswith("peak memory from 24 networks, each predicted by the others to ")


def test_no_number_is_below_zero() -> None:
    """A device whose memory falls with the weights would be no device."""
    model = fit_peak_memory(HERE, measured(lambda a: 200e6 - a.params))
    assert min(model.runtime_bytes, model.per_weight, model.per_activation) >= 0


def test_too_few_networks_are_refused_by_one_line() -> None:
    few = measured(truth, 9)
    unknown = replace(few[0], subject="r1_k3_s11_e1_i32_o16", rounds=(Round((1.0,)),))
    operator = replace(
        few[0], kind="operator", subject=zoo.network("mnasnet-b1").operators()[1].key
    )
    with pytest.raises(NotEnoughData) as refused:
        fit_peak_memory(HERE, [*few, unknown, operator])
    assert str(refused.value) == (
        "peak_memory cannot be predicted on phone: the memory of 9 of its networks is known, and "
        "10 are needed. Measure some, then fit again:  phonenas profile --device phone "
        "--networks 20 --again"
    )


def test_a_model_that_is_not_good_is_none() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(
        NotEnoughData, match=r"cannot be predicted on phone: of 24 .* left out"
    ) as e:
        fit_peak_memory(HERE, measured(lambda a: truth(a) * rng.uniform(0.7, 1.4)))
    assert "\n" not in str(e.value) and "validate measures the memory" in str(e.value)


def test_a_model_that_errs_more_than_one_number_for_all_is_none() -> None:
    """Equal memory but for noise: a line through weights and activations follows the noise."""
    rng = np.random.default_rng(1)
    with pytest.raises(NotEnoughData, match="one number for all"):
        fit_peak_memory(HERE, measured(lambda a: 90e6 * rng.normal(1, 0.02), 12))
