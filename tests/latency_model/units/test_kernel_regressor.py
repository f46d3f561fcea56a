"""Kernels' times from their shapes, and networks from their kernels, on worlds made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phonenas.latency_model.benchmarks.kernel_sums import FEATURES, KernelSum, sums
from phonenas.latency_model.units.kernel_features import Paths, family, features
from phonenas.latency_model.units.kernel_regressor import KernelRegressor
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnsupportedFormat
from phonenas.space.kernels.kernel import Kernel


def convolutions(count: int, seed: int) -> list[Kernel]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        c, d = (int(v) for v in rng.choice([8, 12, 20, 40, 68, 96, 160], 2))
        px, k = int(rng.choice([7, 14, 28, 56])), int(rng.choice([1, 3, 5]))
        groups = 1
        if rng.random() < 0.3:
            d = groups = c
        found.append(Kernel("conv", c, d, (px, px), (px, px), (k, k), groups=groups))
    return found


def world_ms(kernels: list[Kernel]) -> np.ndarray:
    """A launch, work in blocks of 8 channels, traffic; 3×3 with many channels is winograd."""
    out = []
    for k in kernels:
        waste = -(-k.out_channels // 8) * 8 / k.out_channels
        fast = 0.4 if quick(k) else 1.0
        out.append(0.01 + fast * waste * k.macs / 2e8 + (k.reads + k.writes) / 4e7)
    return np.array(out)


def quick(k: Kernel) -> bool:
    return k.kernel == (3, 3) and k.groups == 1 and min(k.in_channels, k.out_channels) >= 40


KNOWN = list(dict.fromkeys(convolutions(320, 0)))


@pytest.fixture(scope="module")
def model() -> KernelRegressor:
    names = ["winograd" if quick(k) else "plain" for k in KNOWN]
    return KernelRegressor.fit(KNOWN, world_ms(KNOWN), names)


def test_new_kernels_are_predicted(model: KernelRegressor) -> None:
    new = [k for k in convolutions(200, 1) if k not in set(KNOWN)]
    off = model.predict_ms(new) / world_ms(new) - 1
    assert len(new) > 30
    assert np.abs(off).mean() < 0.08
    assert 0.001 < model.mape < 0.1
    inside = np.abs(np.log1p(off)) < 1.645 * model.standard_error(new)
    assert inside.mean() > 0.75


def test_the_runtimes_choice_is_predicted_from_shapes(model: KernelRegressor) -> None:
    new = [k for k in convolutions(300, 2) if k.kernel == (3, 3) and k.groups == 1]
    assert model.unusual(new).tolist() == [quick(k) for k in new]
    assert not KernelRegressor.fit(KNOWN[:60], world_ms(KNOWN[:60])).unusual(new).any()


def test_doubt_grows_and_reach_ends_beyond_what_was_taught(model: KernelRegressor) -> None:
    near = Kernel("conv", 40, 64, (14, 14), (14, 14), (3, 3))
    far = Kernel("conv", 1500, 3000, (200, 200), (200, 200), (9, 9))
    near_error, far_error = model.standard_error([near, far])
    assert far_error > 2 * near_error
    assert model.reaches(near)
    assert not model.reaches(far)
    assert not model.reaches(Kernel("softmax", 1000, 1000))
    # Work that nobody measured is still priced by what it does.
    assert model.predict_ms([far])[0] > 50 * model.predict_ms([near])[0]


def test_repeats_merge_and_order_is_of_no_account() -> None:
    some = KNOWN[:80]
    twice = KernelRegressor.fit([*some, *some], [*world_ms(some) * 0.9, *world_ms(some) / 0.9])
    once = KernelRegressor.fit(some, world_ms(some))
    assert len(twice.kernels) == len(once.kernels) == 80
    assert twice.ms == pytest.approx(once.ms)


def test_a_saved_model_predicts_the_same(model: KernelRegressor) -> None:
    text = json.dumps(model.to_dict())
    assert len(text) < 400_000
    again = KernelRegressor.from_dict(json.loads(text))
    asked = convolutions(50, 3)
    assert again.predict_ms(asked) == pytest.approx(model.predict_ms(asked), rel=1e-4)
    assert again.standard_error(asked) == pytest.approx(model.standard_error(asked), rel=1e-3)
    assert again.unusual(asked).tolist() == model.unusual(asked).tolist()
    assert again.mape == model.mape


def test_equal_data_give_equal_models() -> None:
    some = KNOWN[:60]
    one, two = (KernelRegressor.fit(some, world_ms(some)).to_dict() for _ in range(2))
    assert one == two


def test_no_kernels_give_no_numbers(model: KernelRegressor) -> None:
    assert model.predict_ms([]).shape == model.standard_error([]).shape == (0,)


def test_what_cannot_be_fitted_on_is_named() -> None:
    with pytest.raises(NotEnoughData, match="5 kernels are too few for a fit; it takes 20"):
        KernelRegressor.fit(KNOWN[:5], world_ms(KNOWN[:5]))
    with pytest.raises(InvalidArgument, match="3 kernels, but times of shape"):
        KernelRegressor.fit(KNOWN[:3], [1.0])
    with pytest.raises(InvalidArgument, match="positive and finite"):
        KernelRegressor.fit(KNOWN[:2], [1.0, 0.0])
    with pytest.raises(InvalidArgument, match="variants"):
        KernelRegressor.fit(KNOWN, world_ms(KNOWN), ["plain"])


def test_foreign_and_damaged_files_are_refused(model: KernelRegressor) -> None:
    kept = model.to_dict()
    with pytest.raises(UnsupportedFormat, match="other features"):
        KernelRegressor.from_dict(kept | {"features": ["colour"]})
    with pytest.raises(UnsupportedFormat, match="trees are damaged"):
        KernelRegressor.from_dict(kept | {"booster": "tree"}).predict_ms(KNOWN[:1])
    for broken in (
        {"ms": kept["ms"][1:]},
        {"ms": [float("nan"), *kept["ms"][1:]]},
        {"strengths": [0.0]},
        {"paths": {"conv": [[0.0, 1.0, 0.0, 0.0]]}},  # would walk for ever
        {"kernels": ["conv", *kept["kernels"][1:]]},
    ):
        with pytest.raises(ValueError):
            KernelRegressor.from_dict(kept | broken)


def test_families_and_features() -> None:
    depthwise = Kernel("conv", 32, 32, (7, 7), (7, 7), (3, 3), groups=32)
    pointwise = Kernel("conv", 64, 32)
    assert [family(k) for k in (depthwise, pointwise)] == ["depthwise", "linear"]
    assert family(Kernel("conv", 64, 32, groups=4)) == "grouped"
    assert Paths({}).code(depthwise) == 2
    assert all(np.isfinite(features(k)).all() for k in KNOWN)


def networks(count: int, seed: int) -> tuple[list[list[Kernel]], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    pool = convolutions(200, 5)
    made = [[pool[i] for i in rng.integers(0, 200, rng.integers(10, 60))] for _ in range(count)]
    return made, [world_ms(ks) for ks in made]


def test_wholes_are_their_kernels_and_an_overhead() -> None:
    made, alone = networks(40, 0)
    rows = np.array([sums(k, t) for k, t in zip(made, alone, strict=True)])
    whole = 0.8 + 1.05 * rows[:, 0]
    fitted = KernelSum.fit(rows[:30], whole[:30])
    found = fitted.predict_ms(rows[30:])
    assert found == pytest.approx(whole[30:], rel=0.02)
    half = fitted.half_widths(rows[30:])
    assert (np.maximum(found / whole[30:], whole[30:] / found) <= 1 + half).all()
    assert fitted.mape < 0.02


def test_intervals_widen_beyond_what_was_measured_and_with_an_added_error() -> None:
    made, alone = networks(30, 1)
    rows = np.array([sums(k, t) for k, t in zip(made, alone, strict=True)])
    noise = np.exp(np.random.default_rng(0).normal(0, 0.03, 30))
    fitted = KernelSum.fit(rows, noise * (0.5 + rows[:, 0]))
    inside, beyond = rows.mean(axis=0), rows.mean(axis=0) * 20
    near, far = fitted.half_widths([inside, beyond])
    assert far > 3 * near
    assert fitted.half_widths([inside], 0.2)[0] == pytest.approx(np.hypot(near, 0.2))


def test_the_interval_covers_what_the_kernels_leave_open() -> None:
    made, alone = networks(60, 2)
    rows = np.array([sums(k, t) for k, t in zip(made, alone, strict=True)])
    whole = 1 + rows[:, 0]
    factor = np.exp(np.random.default_rng(1).normal(0, 0.1, 60))
    predicted = np.array([sums(k, t * f) for k, t, f in zip(made, alone, factor, strict=True)])
    sure = KernelSum.fit(rows, whole)
    open_ = KernelSum.fit(rows, whole, left_out=predicted)
    assert open_.half_width > 5 * sure.half_width
    found = open_.predict_ms(predicted)
    inside = np.maximum(found / whole, whole / found) <= 1 + open_.half_widths(predicted)
    assert 0.85 <= inside.mean() <= 1


def test_sums_that_do_not_fit_are_named() -> None:
    made, alone = networks(20, 3)
    rows = np.array([sums(k, t) for k, t in zip(made, alone, strict=True)])
    with pytest.raises(InvalidArgument, match="shapes"):
        sums(made[0], alone[0][1:])
    with pytest.raises(NotEnoughData, match="it takes 8"):
        KernelSum.fit(rows[:5], rows[:5, 0])
    with pytest.raises(InvalidArgument, match="sums of shapes"):
        KernelSum.fit(rows, rows[:5, 0])
    with pytest.raises(InvalidArgument, match="positive"):
        KernelSum.fit(rows, -rows[:, 0])
    with pytest.raises(InvalidArgument, match="groups"):
        KernelSum.fit(rows, rows[:, 0], groups=["a"])
    assert len(KernelSum.fit(rows, 1 + rows[:, 0]).coefficients) == len(FEATURES)


def test_an_interval_counts_each_family_once() -> None:
    made, alone = networks(40, 3)
    rows = np.array([sums(k, t) for k, t in zip(made, alone, strict=True)])
    names = ["many"] * 32 + [f"single_{i}" for i in range(8)]
    off = np.where(np.arange(40) < 32, 1.0, np.where(np.arange(40) % 2, 1.3, 0.75))
    whole = (1 + rows[:, 0]) * off
    once = KernelSum.fit(rows, whole, families=names)
    assert once.half_width > KernelSum.fit(rows, whole).half_width
    assert once.coefficients == KernelSum.fit(rows, whole).coefficients


def depthwise(window: int, seed: int, kind: str = "conv") -> list[Kernel]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(40):
        c, px = int(rng.integers(2, 60)) * 4, int(rng.choice([14, 28, 56]))
        stride = int(rng.choice([1, 2])) if kind == "conv" else 1
        px_out, groups = (px // stride,) * 2, c if kind == "conv" else 1
        found.append(
            # type: ignore[arg-type]
            Kernel(kind, c, c, (px, px), px_out, (window,) * 2, (stride,) * 2, groups=groups)
        )
    return found


@pytest.mark.parametrize("tiled", [True, False])
def test_average_pools_tell_whether_depthwise_kernels_share_their_reads(tiled: bool) -> None:
    def read_ms(kernels: list[Kernel]) -> list[float]:
        shared = [
            tiled and k.depthwise and k.kernel == (3, 3) and k.stride == (1, 1) for k in kernels
        ]
        taps = [
            k.kernel[0] ** 2 * (4 / 9 if s else 1.0) for k, s in zip(kernels, shared, strict=True)
        ]
        return [0.01 + k.writes * t / 4e7 for k, t in zip(kernels, taps, strict=True)]

    measured = list(dict.fromkeys(depthwise(3, 0) + depthwise(3, 1, "average_pool")))
    asked = [k for k in depthwise(5, 2) if k.stride == (1, 1)]
    model = KernelRegressor.fit(measured, read_ms(measured), ["plain"] * len(measured))
    kept = model.to_dict()
    assert kept["tiled"] is tiled
    assert np.abs(model.predict_ms(asked) / read_ms(asked) - 1).mean() < 0.2
    assert KernelRegressor.from_dict(kept).predict_ms(asked).tolist() == pytest.approx(
        model.predict_ms(asked).tolist(), rel=1e-3
    )
    # Without the runtime's names nothing is known of its code.
    assert KernelRegressor.fit(measured, read_ms(measured)).to_dict()["tiled"] is False


def own(op: str, reads: int, writes: int, name: str) -> Kernel:
    return Kernel("node", reads, writes, fused=(op, f"d{name}"))


def test_kernels_of_files_own_are_as_measured_or_by_what_they_move() -> None:
    kernels = convolutions(60, 0)
    measured = [own(f"op{i}", 4096 << i, 4096 << i, f"{i:012x}") for i in range(10)]
    # Ten times apart from what their sizes say, each in turn: no two are alike.
    times = [0.01 + k.reads / 1e6 * (10 if i % 2 else 1) for i, k in enumerate(measured)]
    model = KernelRegressor.fit([*kernels, *measured], [*world_ms(kernels), *times])
    plain = KernelRegressor.fit(kernels, world_ms(kernels))
    assert model.predict_ms(measured) == pytest.approx(times)
    assert model.mape == pytest.approx(plain.mape, rel=0.5)  # they do not spoil the others' score
    new = own("op3", 8192, 8192, "f" * 12)
    known, other = model.standard_error([measured[3], new])
    assert other > 0.9 and other > known + 0.3
    assert 0.001 < model.predict_ms([new])[0] < 10


def test_a_family_that_nothing_measured_is_predicted_with_a_wide_error() -> None:
    kernels = convolutions(60, 0)
    model = KernelRegressor.fit(kernels, world_ms(kernels))
    resize = Kernel("resize", 16, 16, (160, 160), (320, 320))
    assert model.standard_error([resize])[0] > 0.9 > model.standard_error(kernels[:1])[0]
    assert 0 < model.predict_ms([resize])[0] < 1e3
    again = KernelRegressor.from_dict(model.to_dict())
    assert again.predict_ms([resize]) == pytest.approx(model.predict_ms([resize]), rel=1e-3)
