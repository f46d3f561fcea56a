"""Weights carried over: growth keeps the function, what shrinks keeps what matters most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phonenas.search.accuracy.inheritance.alignment import aligned, distance, share_carried
from phonenas.space import Architecture, get

torch = pytest.importorskip("torch")

END = "head24 classes5 res16"


def network(*blocks: str, end: str = END) -> Architecture:
    return Architecture.parse(" ".join([*blocks, end]))


def arrays_of(subject: Architecture, seed: int) -> dict[str, Any]:
    """First weights, with BatchNorm as after some training."""
    from phonenas.space.lowering.torch import state_arrays, to_torch

    arrays = state_arrays(to_torch(subject, seed=seed))
    rng = np.random.default_rng(seed)
    for name, value in arrays.items():
        if name.endswith(("_bn.weight", "running_var")):
            arrays[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif name.endswith(("_bn.bias", "running_mean", ".bias")):
            arrays[name] = rng.normal(0, 0.3, value.shape).astype(np.float32)
    return arrays


def logits(subject: Architecture, arrays: dict[str, Any]) -> Any:
    """Of eight images, (8, classes), in evaluation mode."""
    from phonenas.space.lowering.torch import to_torch

    module = to_torch(subject, seed=0)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    px = subject.resolution_px
    images = np.random.default_rng(1).normal(0, 1, (8, 3, px, px)).astype(np.float32)
    with torch.no_grad():
        return module.eval()(torch.from_numpy(images)).numpy()


def inherited(source: Architecture, target: Architecture, seed: int = 3) -> tuple[Any, Any]:
    """Logits of the source, and of the target with its weights."""
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    weights, first = arrays_of(source, 1), arrays_of(target, 2)
    arrays = carried_over(source, weights, target, first, seed)
    assert {n: (a.shape, a.dtype) for n, a in arrays.items()} == {
        n: (a.shape, a.dtype) for n, a in first.items()
    }
    return logits(source, weights), logits(target, arrays)


FIRST, BASE = "r1_k3_s11_e1_i8_o8", "r1_k3_s22_e3_i8_o16"
GROWTH = {
    "nothing": ((FIRST, BASE), (FIRST, BASE)),
    "kernel": ((FIRST, BASE), (FIRST, "r1_k7_s22_e3_i8_o16")),
    "kernel of the first layer": ((FIRST, BASE), ("r1_k5_s11_e1_i8_o8", BASE)),
    "expansion": ((FIRST, BASE), (FIRST, "r1_k3_s22_e6_i8_o16")),
    "middle, not a multiple": ((FIRST, BASE), (FIRST, "r1_k3_s22_m70_i8_o16")),
    "width": ((FIRST, BASE), (FIRST, "r1_k3_s22_e3_i8_o24")),
    "width of a stage with skips": (
        (FIRST, "r3_k3_s22_m40_i8_o16"),
        (FIRST, "r3_k3_s22_m40_i8_o40"),
    ),
    "width before a pool skip": (
        ("r1_k3_s22_e3_i8_o16", "r2_k3_s11_m20_i16_o16_pool"),
        ("r1_k3_s22_e3_i8_o24", "r2_k3_s11_m20_i24_o24_pool"),
    ),
    "width of the stem": ((FIRST, BASE), ("r1_k3_s11_e1_i16_o16", "r1_k3_s22_m24_i16_o16")),
    "depth": ((FIRST, BASE), (FIRST, "r4_k3_s22_e3_i8_o16")),
    "depth of convolutions": (("r1_k3_s22_conv_i8_o16",), ("r3_k3_s22_conv_i8_o16",)),
    "depth of separable ones": (
        (FIRST, "r1_k3_s22_e1_i8_o16"),
        (FIRST, "r3_k5_s22_e1_i8_o16_se0.25"),
    ),
    "a block": ((FIRST, BASE), (FIRST, BASE, "r2_k5_s11_e6_i16_o16_se0.5_hswish")),
    "squeeze": ((FIRST, BASE), (FIRST, "r1_k3_s22_e3_i8_o16_se0.25")),
    "squeeze with a hard sigmoid": (
        (FIRST, "r1_k3_s22_e3_i8_o16_hswish"),
        (FIRST, "r1_k3_s22_e3_i8_o16_hsem0.25_hswish"),
    ),
    "squeeze of a convolution": (("r2_k3_s22_conv_i8_o16",), ("r2_k3_s22_conv_i8_o16_se0.25",)),
    "squeeze's width": (
        (FIRST, "r2_k3_s22_e3_i8_o16_se0.25"),
        (FIRST, "r2_k3_s22_e3_i8_o16_se0.5"),
    ),
    "fused": ((FIRST, "r2_k3_s22_fused_e2_i8_o16"), (FIRST, "r3_k5_s22_fused_e4_i8_o24")),
    "edge": ((FIRST, "r2_k3_s22_edge_e2_i8_o16"), (FIRST, "r3_k5_s22_edge_e4_i8_o24")),
    "universal, a depthwise ahead": (
        (FIRST, "r2_a0_k3_s22_e2_i8_o16"),
        (FIRST, "r2_a5_k3_s22_e2_i8_o16"),
    ),
    "universal, a depthwise within": (
        (FIRST, "r2_a3_k0_s22_e2_i8_o16"),
        (FIRST, "r2_a3_k0_s22_e2_i8_o16", "r1_a0_k0_s11_e2_i16_o16"),
    ),
    "universal, an inner kernel": (
        (FIRST, BASE, "r2_a0_k0_s11_e2_i16_o16"),
        (FIRST, BASE, "r2_a0_k5_s11_e2_i16_o16"),
    ),
    "all at once": (
        (FIRST, "r2_k3_s22_e3_i8_o16", "r1_k3_s22_e3_i16_o24_se0.25"),
        ("r1_k5_s11_e1_i16_o16", "r3_k5_s22_e6_i16_o32_se0.25", "r2_k7_s22_e6_i32_o48_se0.25"),
    ),
}


@pytest.mark.parametrize("what", GROWTH)
def test_growth_keeps_the_function(what: str) -> None:
    small, large = (network(*blocks) for blocks in GROWTH[what])
    before, after = inherited(small, large)
    assert np.ptp(before) > 0.1  # a function that says something
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "ends",
    [
        (END, "head40 classes5 res16"),
        ("head24 hidden16 classes5 res16", "head40 hidden32 classes5 res16"),
        ("head24 hswish hiddennorm16 classes5 res16", "head40 hswish hiddennorm32 classes5 res16"),
    ],
)
def test_a_wider_head_keeps_the_function(ends: tuple[str, str]) -> None:
    small, large = (network(FIRST, BASE, end=end) for end in ends)
    before, after = inherited(small, large)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


def test_copies_of_a_channel_are_read_with_unequal_weights() -> None:
    """Equal ones would get equal gradients, and stay copies for ever."""
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    small, large = network(FIRST, BASE), network(FIRST, "r1_k3_s22_e6_i8_o16")
    arrays = carried_over(small, arrays_of(small, 1), large, arrays_of(large, 2), 0)
    read = arrays["2.project.weight"][:, :, 0, 0]
    _, copy = np.unique(arrays["2.expand.weight"][:, :, 0, 0], axis=0, return_inverse=True)
    assert sorted(np.bincount(copy.ravel())) == [2] * 24
    for channel in range(24):
        one, other = read[:, copy.ravel() == channel].T
        assert (one != other).all() and (one * other > 0).all()


def test_the_channels_that_weigh_least_go() -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    large, small = network(FIRST, "r1_k3_s22_e6_i8_o16"), network(FIRST, BASE)
    weights = arrays_of(large, 1)
    useless = np.random.default_rng(0).choice(48, 24, replace=False)
    weights["2.project.weight"][:, useless] = 0
    arrays = carried_over(large, weights, small, arrays_of(small, 2), 0)
    np.testing.assert_allclose(logits(small, arrays), logits(large, weights), rtol=0, atol=1e-4)


def test_the_trunks_channels_that_weigh_least_go() -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    large = network(FIRST, "r3_k3_s22_m24_i8_o32")
    small = network(FIRST, "r3_k3_s22_m24_i8_o16")
    weights = arrays_of(large, 1)
    useless = np.random.default_rng(0).choice(32, 16, replace=False)
    for place in (3, 4):
        weights[f"{place}.expand.weight"][:, useless] = 0
    weights["5.features.weight"][:, useless] = 0
    arrays = carried_over(large, weights, small, arrays_of(small, 2), 0)
    np.testing.assert_allclose(logits(small, arrays), logits(large, weights), rtol=0, atol=1e-4)


def test_a_smaller_kernel_is_the_centre() -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    large, small = network(FIRST, "r1_k7_s22_e3_i8_o16"), network(FIRST, BASE)
    weights = arrays_of(large, 1)
    border = np.ones((7, 7), bool)
    border[2:5, 2:5] = False
    weights["2.depthwise.weight"][..., border] = 0
    arrays = carried_over(large, weights, small, arrays_of(small, 2), 0)
    np.testing.assert_allclose(logits(small, arrays), logits(large, weights), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["r2_k3_s22_e3_i8_o16", "r2_k3_s22_conv_i8_o16"])
def test_a_squeeze_that_goes_leaves_its_constant_gate(kind: str) -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    squeezed, plain = network(FIRST, f"{kind}_se0.25"), network(FIRST, kind)
    weights = arrays_of(squeezed, 1)
    for place in (2, 3):  # gates that depend on no image, and differ between channels
        weights[f"{place}.se_expand.weight"][:] = 0
    arrays = carried_over(squeezed, weights, plain, arrays_of(plain, 2), 0)
    np.testing.assert_allclose(logits(plain, arrays), logits(squeezed, weights), rtol=0, atol=1e-4)


def test_a_layer_with_a_skip_that_adds_nothing_goes_unnoticed() -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    deep, shallow = network(FIRST, "r3_k3_s22_e3_i8_o16"), network(FIRST, BASE)
    weights = arrays_of(deep, 1)
    for place in (3, 4):
        for name in ("weight", "bias"):
            weights[f"{place}.project_bn.{name}"][:] = 0
    arrays = carried_over(deep, weights, shallow, arrays_of(shallow, 2), 0)
    np.testing.assert_allclose(logits(shallow, arrays), logits(deep, weights), rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_weights() -> None:
    small, large = network(FIRST, BASE), network(FIRST, "r1_k3_s22_e6_i8_o24")
    one, again, other = (inherited(small, large, seed)[1] for seed in (3, 3, 4))
    assert (one == again).all() and not (one == other).all()


@pytest.mark.parametrize("name", ["mnasnet", "nasbench-macro", "mobilenet-v4", "fbnet"])
@pytest.mark.slow
def test_any_two_networks_of_a_space_go_together(name: str) -> None:
    from phonenas.search.accuracy.inheritance.transfer import carried_over

    space = get(name, 32)
    drawn = [space.decode(g).with_classes(5) for g in space.sample(np.random.default_rng(0), 6)]
    for source, target in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
        weights, first = arrays_of(source, 1), arrays_of(target, 2)
        arrays = carried_over(source, weights, target, first, 0)
        assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in first.items()}
        assert all(np.isfinite(a).all() for a in arrays.values())
        assert 0 < share_carried(source, target) <= 1
        assert 0 < distance(source, target) == distance(target, source) < 1
        same = carried_over(source, weights, source, arrays_of(source, 4), 0)
        assert all((same[n] == weights[n]).all() for n in weights)


def test_layers_at_one_stride_are_partners_in_order() -> None:
    small = network(FIRST, "r2_k3_s22_e3_i8_o16", "r1_k3_s22_e3_i16_o24")
    large = network(FIRST, "r4_k3_s22_e3_i8_o16", "r2_k5_s22_e6_i16_o24")
    pairs = aligned(small, large)
    assert [(a is None, b is None) for a, b in pairs] == [
        *[(False, False)] * 4,
        *[(True, False)] * 2,
        (False, False),
        (True, False),
        (False, False),
    ]
    assert all(a.stride == b.stride for a, b in pairs if a is not None and b is not None)


def test_distance_grows_with_what_cannot_be_carried_over() -> None:
    one = network(FIRST, "r2_k3_s22_e3_i8_o16")
    kernel = network(FIRST, "r2_k5_s22_e3_i8_o16")
    both = network(FIRST, "r2_k5_s22_e6_i8_o16")
    kind = network(FIRST, "r2_k3_s22_conv_i8_o16")
    deeper = network(FIRST, "r3_k3_s22_e3_i8_o16")
    assert distance(one, one) == 0
    assert 0 < distance(one, kernel) < distance(one, both) < distance(one, kind)
    # One layer in six has no partner.
    assert distance(one, deeper) == distance(deeper, one) == pytest.approx(1 / 6)
    assert distance(one, kind) == pytest.approx(2 / 5)


def test_share_carried_counts_parameters_of_the_target() -> None:
    one, deeper = network(FIRST, BASE), network(FIRST, "r2_k3_s22_e3_i8_o16")
    added = sum(o.params for o in deeper.operators()) - sum(o.params for o in one.operators())
    assert share_carried(one, deeper) == pytest.approx(1 - added / deeper.params)
    assert share_carried(deeper, one) == 1
    kernel = network(FIRST, "r1_k5_s22_e3_i8_o16")
    assert share_carried(one, kernel) == pytest.approx(1 - 24 * 16 / kernel.params)
