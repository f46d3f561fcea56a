"""Zero-cost proxies, the estimator that ranks by them, and its benchmark on trained networks."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest

from phonenas.search.accuracy import ImageNet
from phonenas.search.accuracy.estimator import Request
from phonenas.search.accuracy.registry import estimator
from phonenas.search.accuracy.zero_cost.normal_scores import Scale, Scales, share
from phonenas.search.accuracy.zero_cost.trained_fit import Description, TrainedFit
from phonenas.search.benchmarks.accuracy import benchmark, draw_rows, genomes_of, ranked, read
from phonenas.space import Architecture, NASBenchMacro, get
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName
from phonenas.testing import EstimatorContract

torch = pytest.importorskip("torch")

from phonenas.data.images import ImageSet  # noqa: E402
from phonenas.search.accuracy.zero_cost import proxies as rooms  # noqa: E402
from phonenas.search.accuracy.zero_cost.proxies import PROXIES, seed_of  # noqa: E402
from phonenas.search.accuracy.zero_cost.proxy_inputs import Batch, of_images, of_noise  # noqa: E402
from phonenas.search.accuracy.zero_cost.zero_cost import ENSEMBLE, Scoring, ZeroCost  # noqa: E402
from phonenas.space.lowering.torch import to_torch  # noqa: E402

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
PLAIN = Architecture.parse("r1_k3_s22_e2_i4_o6 r1_k3_s11_conv_i6_o8 head12 classes3 res8")
SKIPS = Architecture.parse("r2_k3_s22_e2_i4_o4_se0.5 r2_k3_s11_e1_i4_o4 head12 classes3 res16")
MACRO = NASBenchMacro(16)
MNAS = get("mnasnet")
# Small enough to be judged in a few milliseconds.
TINY = [
    Architecture.parse(f"r{n}_k{k}_s22_e{e}_i4_o{c} r1_k3_s11_conv_i{c}_o8 head12 classes3 res8")
    for n in (1, 2)
    for k in (3, 5)
    for e in (1, 3)
    for c in (4, 6)
]
BATCH = of_noise(6, 8, 3, seed=0)


def drawn(n: int, seed: int = 0) -> list[Architecture]:
    return [MACRO.decode(g) for g in MACRO.sample(np.random.default_rng(seed), n)]


def small(**more: object) -> ZeroCost:
    """One whose reference are the first eight of `TINY`."""
    given: dict[str, object] = {"space": MACRO, "reference": TINY[:8], "batch": 4} | more
    scoring = {k: given.pop(k) for k in ("repeats", "batch", "resolution_px") if k in given}
    return ZeroCost(**given, scoring=Scoring(**scoring))  # type: ignore[arg-type]


def by_size(**more: object) -> ZeroCost:
    """One by MACs, whose reference are eight networks of NAS-Bench-Macro."""
    return small(**{"proxies": ("macs",), "reference": 8} | more)


# -- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_a_number_of_network_and_seed_alone(name):
    batch = of_noise(12, 16, 3, seed=0)
    state = torch.get_rng_state()
    first = PROXIES[name](SKIPS, batch, 7)
    assert np.isfinite(first)
    assert PROXIES[name](SKIPS, batch, 7) == first
    if name not in ("macs", "params"):
        assert PROXIES[name](SKIPS, batch, 8) != first
    assert torch.equal(torch.get_rng_state(), state), "torch's global chance is left alone"


def relu_codes():
    """Which values of `PLAIN` are above 0, (images, values), from the ReLUs that torch is asked
    for."""
    from torch.overrides import TorchFunctionMode

    seen = []

    class Relus(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if function is torch.relu:
                seen.append((found > 0).flatten(1).numpy())
            return found

    with torch.no_grad(), Relus():
        to_torch(PLAIN, dropout=0.0, seed=3)(BATCH.images)
    assert len(seen) == 1 + 2 + 1 + 1  # stem, expand, depthwise, conv, features
    return np.concatenate(seen, axis=1)


def test_naswot_counts_the_codes_of_every_relu():
    codes = relu_codes()
    agree = (codes[:, None] == codes[None]).sum(axis=2)
    expected = np.linalg.slogdet(agree.astype(np.float64))[1]
    assert PROXIES["naswot"](PLAIN, BATCH, 3) == pytest.approx(expected, rel=1e-9)


def test_swap_counts_the_patterns_over_the_images():
    patterns = {tuple(column) for column in relu_codes().T.tolist()}
    assert 10 < len(patterns) <= 2**6
    assert PROXIES["swap"](PLAIN, BATCH, 3) == pytest.approx(log(len(patterns)), rel=1e-12)


def test_naswot_sees_alike_images():
    """Where all images are one, K has rank 1 and no determinant."""
    alike = Batch(BATCH.images[:1].repeat(6, 1, 1, 1), BATCH.labels)
    assert PROXIES["naswot"](PLAIN, alike, 3) == -np.inf


def test_grad_norm_is_the_sum_over_layers():
    built = to_torch(PLAIN, dropout=0.0, seed=3)
    weights = [p for name, p in built.named_parameters() if p.dim() > 1]
    loss = -torch.log_softmax(built(BATCH.images), 1)[range(6), BATCH.labels].mean()
    lengths = [float(g.square().sum().sqrt()) for g in torch.autograd.grad(loss, weights)]
    assert len(lengths) == 7
    assert PROXIES["grad_norm"](PLAIN, BATCH, 3) == pytest.approx(sum(lengths), rel=1e-4)


def test_zico_divides_gradients_by_how_they_vary():
    batch = of_noise(8, 8, 3, seed=1)
    built = to_torch(PLAIN, dropout=0.0, seed=3)
    weights = [p for name, p in built.named_parameters() if p.dim() > 1]
    parts = []
    for rows in ([0, 1], [2, 3], [4, 5], [6, 7]):
        chances = torch.log_softmax(built(batch.images[rows]), 1)
        loss = -chances[[0, 1], batch.labels[rows]].mean()
        parts.append([g.double().numpy() for g in torch.autograd.grad(loss, weights)])
    expected = 0.0
    for each in zip(*parts, strict=True):
        gradients = np.stack(each).reshape(4, -1)
        spread = np.sqrt(((gradients - gradients.mean(0)) ** 2).mean(0))
        moved = spread > 0
        expected += log((np.abs(gradients).mean(0)[moved] / spread[moved]).sum())
    assert PROXIES["zico"](PLAIN, batch, 3) == pytest.approx(expected, rel=1e-3)


def test_expressivity_is_the_entropy_of_principal_components():
    built, maps = rooms._with_noise(PLAIN, 3)
    entropies = []
    with torch.no_grad():
        for layer in list(built.children())[:-1]:
            maps = layer(maps)
            rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).double().numpy()
            lengths = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
            shares = lengths / lengths.sum()
            entropies.append(-sum(p * log(p) for p in shares if p > 0))
    assert len(entropies) == 3 and all(0 < e < log(8) for e in entropies)
    assert PROXIES["expressivity"](PLAIN, BATCH, 3) == pytest.approx(sum(entropies), rel=1e-6)
    least = min(entropies[1] - entropies[0], entropies[2] - entropies[1])
    assert PROXIES["progressivity"](PLAIN, BATCH, 3) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("length", "expected"), [(0.5, -0.5), (1.0, 0.0), (2.0, -0.5)])
def test_trainability_is_best_where_gradients_keep_their_length(
    monkeypatch, stride, length, expected
):
    """A block that turns channels and stretches them by a known length."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    block = torch.nn.Conv2d(4, 4, 1, stride, bias=False)
    weight = torch.from_numpy(length * turn).float()[:, :, None, None]
    block.weight = torch.nn.Parameter(weight)
    plain = torch.nn.Sequential(torch.nn.Identity(), block, torch.nn.Identity())
    noise = torch.randn((64, 4, 33, 33), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rooms, "_with_noise", lambda network, seed: (plain, noise))
    assert PROXIES["trainability"](PLAIN, BATCH, 3) == pytest.approx(expected, abs=0.05)


def test_synflow_flows_alike_through_every_layer():
    """Without skips each layer carries the whole flow R: the sum is R times their number."""
    from torch.nn import functional

    state = to_torch(PLAIN, seed=3).state_dict()
    flow = torch.ones((1, 3, 8, 8), dtype=torch.float64)
    convolutions = [(i, c) for i, o in enumerate(PLAIN.operators()) for c in o.convolutions]
    for i, c in convolutions:
        weight = state[f"{i}.{c.name}.weight"].double().abs()
        if c.name == "classifier":
            flow = flow.mean((2, 3)) @ weight.T
        else:
            flow = functional.conv2d(
                flow, weight, stride=c.stride, padding=c.kernel // 2, groups=c.groups
            )
    expected = log(len(convolutions) * float(flow.sum()))
    assert PROXIES["synflow"](PLAIN, BATCH, 3) == pytest.approx(expected, rel=1e-9)


def test_zen_adds_the_scale_of_each_norm_to_the_sensitivity():
    moved, scales = rooms._moved(PLAIN, 3)
    assert PROXIES["sensitivity"](PLAIN, BATCH, 3) == moved
    assert PROXIES["zen"](PLAIN, BATCH, 3) == moved + scales
    # The stem's first norm alone: 27 products of unit variance, fewer at the border.
    assert scales > 0
    skipless = tuple(replace(b, skip="none") for b in SKIPS.blocks)
    bare = replace(SKIPS, blocks=skipless)
    assert PROXIES["zen"](SKIPS, BATCH, 3) == PROXIES["zen"](bare, BATCH, 3)
    assert PROXIES["sensitivity"](SKIPS, BATCH, 3) != PROXIES["sensitivity"](bare, BATCH, 3)


def test_equal_networks_have_equal_seeds_and_others_their_own():
    assert seed_of(PLAIN, 0) == seed_of(Architecture.parse(str(PLAIN)), 0)
    assert len({seed_of(a, s) for a in (PLAIN, SKIPS) for s in range(3)}) == 6
    assert 0 <= seed_of(PLAIN, 0) < 2**63


# -- what is shown --------------------------------------------------------------------------------


def made_images(n: int = 12, classes: int = 3) -> ImageSet:
    pixels = np.random.default_rng(1).integers(0, 256, (n, 10, 20, 3)).astype(np.uint8)
    return ImageSet.of(pixels, np.arange(n) % classes)


def test_images_are_cut_to_the_middle_and_normalised():
    images = made_images()
    shown = of_images(images, 5, 10, seed=2)
    chosen = np.random.default_rng(2).choice(12, 5, replace=False)
    assert shown.labels.tolist() == images.labels[chosen].tolist()
    middle = images.image(int(chosen[0]))[:, 5:15] / 255
    expected = (middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(shown.images[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert of_images(images, 5, 16, seed=2).images.shape == (5, 3, 16, 16)


def test_networks_are_judged_with_the_classes_of_the_images():
    with_images = small(images=made_images(), proxies=("grad_norm",))
    thousand = replace(TINY[9], classes=1000)
    three = replace(thousand, classes=3)
    told = with_images.estimate([thousand, three]).top1
    assert told[0] == told[1]


# -- places ---------------------------------------------------------------------------------------


def test_places_are_strictly_in_the_order_of_the_scores():
    reference = np.array([3.0, 1.0, 1.0, 2.0, 10.0])
    scale = Scale.of(reference)
    asked = np.array([-50.0, 0.0, 1.0, 1.5, 2.0, 3.0, 9.9, 10.0, 10.1, 60.0])
    places = scale(asked)
    assert (np.diff(places) > 0).all()
    assert scale(np.array([2.0]))[0] == pytest.approx(0.0)  # the median
    assert np.isnan(scale(np.array([np.nan]))).all()
    shares = share(places)
    assert (np.diff(shares) > 0).all()
    assert (0 < shares[0]) & (shares[-1] < 1)
    # 0.9 of the reference lie below its largest, by halves of ranks.
    assert share(scale(np.array([10.0])))[0] == pytest.approx(0.9, abs=0.01)


def test_a_reference_alike_throughout_gives_all_the_same_place():
    assert (Scale.of(np.ones(9))(np.array([0.0, 1.0, 2.0])) == 0).all()


def test_the_mean_of_places_weighs_proxies_alike_whatever_their_unit():
    scores = np.array([[1.0, 40.0], [2.0, 10.0], [3.0, 30.0], [4.0, 20.0]])
    other = scores * [1000.0, 1e-6]
    np.testing.assert_allclose(Scales.of(scores)(scores), Scales.of(other)(other), atol=1e-12)
    single = Scales.of(scores[:, :1])
    np.testing.assert_allclose(single(scores[:, :1]), single.single[0](scores[:, 0]), atol=1e-12)


# -- fitted on trained networks -------------------------------------------------------------------


def made_columns(n: int, seed: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Columns of four kinds, and logits that follow from two of them."""
    rng = np.random.default_rng(seed)
    kinds = tuple(rng.standard_normal((n, k)) / k**0.5 for k in (1, 3, 8, 20))
    weights = np.random.default_rng(99).standard_normal(8)
    logits = 1.0 + 0.3 * kinds[0][:, 0] + 0.4 * kinds[2] @ weights
    return kinds, logits + 0.03 * rng.standard_normal(n)


def test_a_fit_finds_what_tells_of_the_accuracies() -> None:
    errors, inside = {}, []
    asked, logits = made_columns(400, 1)
    truth = 1 / (1 + np.exp(-logits))
    for k in (10, 40, 80):
        known, seen = made_columns(k, 2)
        top1, error = TrainedFit.of(known, 1 / (1 + np.exp(-seen)))(asked)
        errors[k] = np.sqrt(((top1 - truth) ** 2).mean())
        inside.append((np.abs(top1 - truth) <= 1.645 * error).mean())
    # What no column explains is 0.03 logits, some 0.006 of top-1.
    assert errors[80] < 0.008 < errors[10] < 0.8 * truth.std()
    assert errors[80] < errors[40] < 0.5 * errors[10]
    assert all(0.75 < share <= 1 for share in inside)


def test_what_tells_nothing_of_the_accuracies_hardly_counts() -> None:
    columns, _ = made_columns(60, 3)
    top1 = 0.7 + 0.05 * np.random.default_rng(4).standard_normal(60)
    expected, error = TrainedFit.of(columns, top1)(made_columns(200, 5)[0])
    assert expected.std() < 0.5 * top1.std()
    assert expected.mean() == pytest.approx(top1.mean(), abs=0.01)
    assert 0.04 < error.min() and error.max() < 0.09


def test_a_description_counts_operators_and_scales_each_kind_by_the_reference() -> None:
    reference, asked = TINY[:8], [*TINY[8:12], SKIPS]
    normal = np.random.default_rng(0).standard_normal((8, 3))
    description = Description.of(reference, normal, [])
    for kind in description(reference, normal):
        assert kind.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
        assert (kind**2).sum(axis=1).mean() == pytest.approx(1.0)
    rank, own, whole, counts = description(asked, np.zeros((5, 3)))
    assert (rank.shape, own.shape, len(whole.T)) == ((5, 1), (5, 3), 13)
    # One column for each operator of the reference, and one for all others together.
    seen = {o for a in reference for o in a.operators()}
    assert counts.shape == (5, len(seen) + 1)
    length = description.lengths[3][-1]
    others = [sum(o not in seen for o in a.operators()) for a in asked]
    assert counts[:, -1] * length == pytest.approx(np.array(others, float))
    assert others[-1] == len(SKIPS.operators())


# -- the estimator --------------------------------------------------------------------------------


class TestZeroCost(EstimatorContract):
    class Sizes(ZeroCost):
        def __init__(self) -> None:
            super().__init__(proxies=("macs", "params"), space=MNAS)

    @pytest.fixture
    def estimator(self):
        return self.Sizes()


def test_answers_do_not_depend_on_company_order_or_threads():
    asked = TINY[9:12]
    together = small().estimate(asked)
    before = torch.get_num_threads()
    other = small()
    try:
        torch.set_num_threads(2)
        backwards = [other.estimate([a]).top1[0] for a in reversed(asked)][::-1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert together.top1.tolist() == backwards
    assert len(set(backwards)) == 3
    assert together.seconds
    assert small().digest == other.digest


def test_all_that_answers_depend_on_is_in_the_digest():
    images = made_images()
    known = [(a, 0.5 + 0.01 * i) for i, a in enumerate(drawn(10))]
    several = [
        small(),
        small(seed=1),
        small(repeats=2),
        small(batch=5),
        small(reference=TINY[:9]),
        small(reference=8),
        small(resolution_px=8),
        small(proxies=("naswot",)),
        small(images=images),
        small(images=made_images(13)),
        small(known=known),
        small(space=MNAS, reference=8),
    ]
    assert len({e.digest for e in several}) == len(several)


def test_rank_is_the_ensemble_and_words_may_be_joined():
    assert small().proxies == ENSEMBLE == small(proxies="rank").proxies
    assert small(proxies=("zen", "rank", "naswot")).proxies == ("zen", *ENSEMBLE)
    assert small(proxies=("macs",)).cost_s < 0.001 < small(repeats=3).cost_s


def test_without_calibration_it_says_that_it_only_ranks():
    estimator = by_size()
    least, most = (MACRO.decode([g] * 8) for g in (0, 2))
    told = estimator.estimate([least, most])
    assert told.top1[0] < 0.2 < 0.8 < told.top1[1]
    assert (told.standard_error == 0.2).all()
    assert "only the order counts" in estimator.note
    assert "8 reference networks" in estimator.note
    assert not told.failed
    assert len(estimator.estimate([])) == 0


def test_far_beyond_the_reference_is_outside_and_still_in_order():
    larger = [Architecture.parse(f"r{n}_k5_s11_e6_i64_o64 classes10 res16") for n in (20, 40, 60)]
    told = by_size().estimate([*drawn(3), *larger])
    assert told.outside.tolist() == [False] * 3 + [True] * 3
    assert (np.diff(told.top1[3:]) > 0).all()


def test_repeats_average_over_first_weights():
    network = TINY[:1]
    one, other, both = (
        small(proxies=("grad_norm",), seed=s, repeats=r).scores(network)[0][0, 0]
        for s, r in ((0, 1), (1, 1), (0, 2))
    )
    # The batch is drawn by the estimator's seed, so that of seed 1 is another.
    assert one != other
    assert one != both
    again = small(proxies=("grad_norm",), repeats=2).scores(network)[0][0, 0]
    assert both == again


def test_what_is_known_brings_it_to_a_scale_of_accuracies():
    """Accuracies that the proxy alone does not tell: deeper is better, larger is worse."""

    def top1_of(network: Architecture) -> float:
        return 0.6 + 0.02 * len(network.operators()) - 0.04 * np.log(network.macs / 1e7)

    networks = list(dict.fromkeys(drawn(90)))
    known, asked = [(a, top1_of(a)) for a in networks[:30]], networks[30:]
    corrected = by_size(known=known)
    told = corrected.estimate(asked)
    assert "scale of 30 trained networks" in corrected.note and corrected.quantity == "top-1"
    truth = [top1_of(a) for a in asked]
    assert np.abs(told.top1 - truth).max() < 0.02
    assert ranked(told.top1, truth)["kendall_tau"] > 0.9
    assert ranked(by_size().estimate(asked).top1, truth)["kendall_tau"] < 0.6
    # The same from one that was made without; alone or together.
    other = by_size().knowing(known)
    assert other.digest == corrected.digest != by_size().digest
    assert (other.note, other.quantity) == (corrected.note, "top-1")
    assert other.estimate(asked[:1]).top1[0] == told.top1[0]


def test_a_table_of_trained_networks_is_read(tmp_path):
    import pandas as pd

    networks = list(dict.fromkeys(drawn(20)))[:11]
    rows = [(str(a), 70.0 + i, "") for i, a in enumerate(networks)]
    rows += [(str(networks[0]), 72.0, ""), (str(networks[1]), np.nan, "it diverged")]
    pd.DataFrame(rows, columns=["network", "top1", "failed"]).to_csv(tmp_path / "t.csv")
    request = Request(trained=tmp_path / "t.csv", space=MACRO)
    made = estimator("zero_cost:macs", request)
    assert dict(made.known) == pytest.approx(
        {a: (0.71 if i == 0 else 0.70 + i / 100) for i, a in enumerate(networks)}
    )
    with pytest.raises(InvalidArgument, match="--unit is of the table of --trained"):
        estimator("zero_cost:macs", Request(unit="percent"))
    with pytest.raises(InvalidArgument, match="a.db is a cache, .* a table with the columns"):
        estimator("zero_cost:macs", Request(trained=tmp_path / "a.db"))
    with pytest.raises(InvalidArgument, match="does not use --trained: leave --trained out"):
        estimator("imagenet", request)


def test_a_network_without_a_number_has_failed_and_the_others_go_on(monkeypatch):
    asked = [*drawn(2), MACRO.decode([0] * 8), MACRO.decode([2] * 8), MACRO.decode([1] * 8)]
    bad = {asked[2].macs: "nan", asked[3].macs: "memory", asked[4].macs: "log"}

    def sometimes(network, batch, seed):
        what = bad.get(network.macs)
        if what == "memory":
            raise RuntimeError("not enough\n memory")
        return float("nan") if what == "nan" else log(0 if what == "log" else network.macs)

    monkeypatch.setitem(PROXIES, "naswot", sometimes)
    estimator = small(proxies=("naswot", "macs"), reference=drawn(20, seed=9))
    told = estimator.estimate(asked)
    assert told.well.tolist() == [True, True, False, False, False]
    assert told.failed[0] == ""
    assert told.failed[2] == "naswot gave no finite number"
    assert told.failed[3] == "naswot could not be computed: not enough memory"
    assert "naswot has no number for it" in told.failed[4]
    alone = estimator.estimate(asked[:2])
    assert told.top1[:2].tolist() == alone.top1.tolist()
    monkeypatch.setitem(PROXIES, "naswot", lambda network, batch, seed: float("inf"))
    with pytest.raises(NotEnoughData, match="numbers for 0 of 8"):
        small(proxies=("naswot",)).estimate(TINY[:1])


def test_larger_networks_are_judged_at_less():
    a = MNAS.decode(MNAS.sample(np.random.default_rng(0), 1)[0])
    estimator = small(resolution_px=48)
    assert estimator._as_scored(a).resolution_px == 48
    assert small(resolution_px=16)._as_scored(a).resolution_px == a.total_stride
    assert small(resolution_px=None)._as_scored(a) == a
    assert estimator._as_scored(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"proxies": ("nasswot",)}, UnknownName, "Did you mean 'naswot'"),
        ({"proxies": ()}, InvalidArgument, "at least one proxy"),
        ({"batch": 3}, InvalidArgument, "4 images"),
        ({"repeats": 0}, InvalidArgument, "1 repeat"),
        ({"seed": -1}, InvalidArgument, "a seed of 0"),
        ({"reference": 7}, NotEnoughData, "there are 7"),
        ({"reference": [PLAIN] * 20}, NotEnoughData, "there are 1"),
        ({"known": [(PLAIN, 0.5)]}, InvalidArgument, "10 to 200 different trained .* got 1"),
        ({"known": [(PLAIN, 90.0)] * 12}, InvalidArgument, r"top-1 in \(0, 1\)"),
        ({"known": [(PLAIN, 0.5)] * 201}, InvalidArgument, "phonenas fit-accuracy TABLE"),
        ({"images": made_images(3)}, InvalidArgument, "arrays has 3"),
    ],
)
def test_what_it_cannot_take(more, error, words):
    with pytest.raises(error, match=words):
        small(**more)


# -- the benchmark --------------------------------------------------------------------------------


def table(n: int = 40):
    import pandas as pd

    genomes = MACRO.sample(np.random.default_rng(3), n)
    frame = pd.DataFrame(genomes, columns=list(MACRO.decisions))
    frame["acc"] = [MACRO.decode(g).macs ** 0.5 for g in genomes]
    return frame


def test_genes_may_be_numbers_or_values_of_options():
    frame = table(6)
    genomes = genomes_of(frame, MACRO, ["l*"])
    assert genomes.tolist() == frame[list(MACRO.decisions)].to_numpy().tolist()
    words = frame.copy()
    for name, options in MACRO.decisions.items():
        words[name] = [options[i] for i in frame[name]]
    assert (genomes_of(words, MACRO, ["l*"]) == genomes).all()
    frame.loc[2, "l3"] = 5
    assert (genomes_of(frame, MACRO, ["l*"])[2] == -1).all()
    with pytest.raises(UnknownName, match="no gene column is called l7"):
        genomes_of(frame.drop(columns="l7"), MACRO, ["l*"])


def test_benchmark_ranks_against_what_was_trained():
    frame = table()
    frame.loc[0, "l0"] = 9
    frame.loc[1, "acc"] = np.nan
    sizes = {"zero_cost:params": by_size(proxies=("params",))}
    trained = read(frame, MACRO, genes=["l*"], target="acc")
    found = benchmark(trained, sizes, networks=20, seed=4, draws=2)
    assert found["left_out"] == 2
    assert [(r["estimator"], r["draw"]) for r in found["rows"]] == [
        (e, d) for d in (4, 5) for e in ("macs", "params", "zero_cost:params")
    ]
    by_name = {(r["estimator"], r["draw"]): r for r in found["rows"]}
    assert by_name["macs", 4]["kendall_tau"] == pytest.approx(1.0)
    # A share of a reference keeps the order of what it is a share by.
    assert by_name["zero_cost:params", 5]["kendall_tau"] == by_name["params", 5]["kendall_tau"]
    usable = frame.drop(index=[0, 1]).reset_index(drop=True)
    rows = usable.loc[draw_rows(38, 20, 4)]
    asked = [MACRO.decode(g) for g in rows[list(MACRO.decisions)].to_numpy()]
    assert (
        by_name["params", 4]["kendall_tau"]
        == ranked([a.params for a in asked], rows["acc"])["kendall_tau"]
    )
    means = found["mean"]["params"]
    taus = [by_name["params", d]["kendall_tau"] for d in (4, 5)]
    assert means["kendall_tau"] == pytest.approx(np.mean(taus))
    assert (means["lowest"], means["highest"]) == (min(taus), max(taus))
    json.dumps(found, allow_nan=False)
    with pytest.raises(NotEnoughData, match="38 of 40 rows"):
        benchmark(trained, sizes, networks=39)
    with pytest.raises(InvalidArgument, match="3 networks"):
        benchmark(trained, sizes, networks=2)


def test_benchmark_gives_other_rows_as_trained():
    frame = table(80)
    frame["acc"] = [
        60 + 2.0 * len(MACRO.decode(g).operators()) for g in genomes_of(frame, MACRO, ["l*"])
    ]
    trained = read(frame, MACRO, genes=["l*"], target="acc")
    sizes = {"zero_cost:params": by_size(proxies=("params",))}
    alone, given = (
        benchmark(trained, sizes, networks=30, trained=n, seed=1)["mean"] for n in (0, 20)
    )
    assert alone["params"]["kendall_tau"] == given["params"]["kendall_tau"]  # of the same rows
    # Depths are tied in the truth and not in an estimate, so that no tau is 1.
    before, after = (found["zero_cost:params"]["kendall_tau"] for found in (alone, given))
    assert after > 0.85 > before + 0.1
    rows = draw_rows(80, 30, 1)
    others = trained.others(rows, 20, 1)
    assert len({a.operators() for a, _ in others}) == 20
    assert not {a.operators() for a, _ in others} & {
        MACRO.decode(g).operators() for g in trained.genomes[rows]
    }
    assert all(top1 == pytest.approx(0.6 + 0.02 * len(a.operators())) for a, top1 in others)
    with pytest.raises(NotEnoughData, match="80 of 80 rows .* 70 and 20 trained ones were asked"):
        benchmark(trained, sizes, networks=70, trained=20)
    with pytest.raises(InvalidArgument, match="imagenet takes none"):
        benchmark(trained, {"imagenet": ImageNet()}, networks=30, trained=20)


def test_failed_networks_are_left_out_of_the_ranking():
    assert ranked([1.0, np.nan, 2.0, 3.0], [1.0, 0.0, 2.0, 4.0]) == {
        "n": 3,
        "kendall_tau": pytest.approx(1.0),
        "spearman": pytest.approx(1.0),
    }
    assert ranked([1.0, 1.0, 1.0], [1.0, 0.0, 2.0])["kendall_tau"] is None
    assert ranked([np.nan, 1.0, 2.0], [1.0, 0.0, 2.0])["spearman"] is None


def test_the_command_prints_baselines_beside_the_estimators(tmp_path, capsys):
    from phonenas.cli.benchmark import accuracy

    file = tmp_path / "t.csv"
    table().to_csv(file, index=False)
    given = {"space": "nasbench-macro", "genes": ["l*"], "target": "acc", "networks": 10}
    accuracy(file, **given, estimator=["zero_cost:macs"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    taus = {r["estimator"]: r["kendall_tau"] for r in found["rows"]}
    assert set(taus) == {"macs", "params", "zero_cost:macs"}
    assert taus["zero_cost:macs"] == pytest.approx(1.0)
    accuracy(file, **given, estimator=["zero_cost:macs"], draws=2)
    shown = capsys.readouterr().out
    assert "10 networks of nasbench-macro a draw, ○ ranked against acc" in shown
    assert shown.count("zero_cost:macs") == 3


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data does not lie beside the checkout")
def test_the_ensemble_ranks_trained_networks_better_than_their_size():
    """On 100 networks of a draw on which no member was chosen; `bench_accuracy` has more draws."""
    import pandas as pd

    from phonenas.data.images import read_images

    macro = NASBenchMacro()
    frame = pd.read_csv(SHARED / "nasbench_macro.csv")
    found = benchmark(
        read(frame, macro, genes=["l*"], target="mean_acc"),
        {"rank": ZeroCost(read_images(SHARED / "cifar10_12k.npz"), space=macro)},
        networks=100,
        seed=6,
    )
    taus = {r["estimator"]: r["kendall_tau"] for r in found["rows"]}
    assert taus["rank"] >= 0.72
    assert taus["rank"] > taus["macs"] > taus["params"]
