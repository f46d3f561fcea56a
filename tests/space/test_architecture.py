"""Networks and the line of text that names them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonenas import space
from phonenas.space.architecture import Architecture, Block
from phonenas.space.errors import InvalidArchitecture, InvalidArgument
from phonenas.space.operator import Operator

A1 = (
    "r1_k3_s11_e1_i32_o16_noskip · r2_k3_s22_e6_i16_o24 · r3_k5_s22_e3_i24_o40_se0.25 · "
    "r4_k3_s22_e6_i40_o80 · r2_k3_s11_e6_i80_o112_se0.25 · r3_k5_s22_e6_i112_o160_se0.25 · "
    "r1_k3_s11_e6_i160_o320"
)
B1 = (
    "r1_k3_s11_e1_i32_o16_noskip · r3_k3_s22_e3_i16_o24 · r3_k5_s22_e3_i24_o40 · "
    "r3_k5_s22_e6_i40_o80 · r2_k3_s11_e6_i80_o96 · r4_k5_s22_e6_i96_o192 · "
    "r1_k3_s11_e6_i192_o320_noskip"
)
SMALL = (
    "r1_k3_s11_e1_i16_o8 · r1_k3_s22_e3_i8_o16 · r2_k3_s22_e6_i16_o16 · "
    "r4_k5_s22_e6_i16_o32_se0.25 · r3_k3_s11_e6_i32_o32_se0.25 · r3_k5_s22_e6_i32_o88_se0.25 · "
    "r1_k3_s11_e6_i88_o144"
)


# -- the published strings ---------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [(A1, "mnasnet-a1"), (B1, "mnasnet-b1")])
def test_published_strings_parse_and_print_back(text: str, name: str) -> None:
    words = text.split(" · ")
    parsed = Architecture.parse(text)
    assert parsed == space.zoo.network(name)
    assert [str(block) for block in parsed.blocks] == words
    assert str(parsed) == " ".join(words)


def test_small_stands_behind_a_stem_of_8() -> None:
    parsed = Architecture.parse(f"stem8 {SMALL}")
    assert parsed == space.zoo.network("mnasnet-small")
    assert parsed.operators()[0].out_channels == 8
    # The published i16 has no effect: the block sees what the stem gives, and says so.
    assert str(parsed).startswith("r1_k3_s11_e1_i8_o8 ")
    assert Architecture.parse(str(parsed)) == parsed


@pytest.mark.parametrize("gap", [" ", "\n\t ", ",", ", ", " ; ", "·", "\u00a0", "\u2003·\u2009"])
def test_words_are_parted_by_many_things(gap: str) -> None:
    text = A1.replace(" · ", gap)
    assert Architecture.parse(gap + text + gap) == Architecture.parse(A1)


def test_tokens_may_stand_in_any_order() -> None:
    shuffled = Architecture.parse("se0.25_o40_i24_e3_s2_k5_r3")
    assert str(shuffled) == "r3_k5_s22_e3_i24_o40_se0.25"
    assert Architecture.parse("r03_k05_s22_e03_i024_o040_se.25") == shuffled


ACTIVATIONS = ["relu", "relu6", "hard_swish", "swish"]
# -- parse and str are inverse -----------------------------------------------------------------


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    channels = st.one_of(st.integers(1, 64), st.sampled_from([96, 112, 320]))
    stem = before = draw(channels)
    blocks = []
    total_stride = stem_stride = draw(st.sampled_from([2, 2, 1]))
    for _ in range(draw(st.integers(1, 8))):
        after = draw(st.one_of(st.just(before), channels))
        middle = draw(st.sampled_from([0, 0, 1, 16, 184, before]))
        expansion = 0 if middle else draw(st.sampled_from([0, 1, 2, 3, 4, 6, 10]))
        regular = not (middle or expansion)
        form = "" if regular else draw(st.sampled_from(["", "", "fused", "edge"]))
        ahead = 0 if regular or form else draw(st.sampled_from([0, 0, 3, 7]))
        stride = draw(st.sampled_from([1, 1, 2]))
        bare = not (regular or form) and (stride == 1 or ahead > 0) and draw(st.booleans())
        block = Block(
            repeats=draw(st.integers(1, 5)),
            kernel=0 if bare else draw(st.sampled_from([1, 3, 5, 7, 11])),
            stride=stride,
            expansion=expansion,
            in_channels=before,
            out_channels=after,
            se_ratio=draw(st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(1e-4, 1))),
            skip=draw(st.sampled_from(["identity", "pool", "none"])),
            linear=regular and draw(st.booleans()),
            middle=middle,
            ahead=ahead,
            form=form,
            activation=draw(st.sampled_from(ACTIVATIONS)),
            gate=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
            of_middle=draw(st.booleans()),
        )
        blocks.append(block)
        total_stride *= block.stride
        before = after
    return Architecture(
        tuple(blocks),
        stem,
        head_channels=draw(st.sampled_from([1, 640, 1280, 1792])),
        classes=draw(st.sampled_from([1, 10, 1000])),
        # Eight strides of 2 and the stem's come to 512.
        resolution_px=draw(st.one_of(st.just(max(224, total_stride)), st.integers(512, 2048))),
        stem_stride=stem_stride,
        activation=draw(st.sampled_from(ACTIVATIONS)),
        hidden_channels=(hidden := draw(st.sampled_from([0, 0, 7, 1280]))),
        mixer=draw(st.sampled_from(["bias", "norm", "plain"])) if hidden else "bias",
    )


@settings(max_examples=150, deadline=None)
@given(architectures())
def test_parse_and_str_are_inverse(architecture: Architecture) -> None:
    parsed = Architecture.parse(str(architecture))
    assert parsed == architecture
    assert hash(parsed) == hash(architecture)
    assert str(parsed) == str(architecture)
    assert parsed.operators() == architecture.operators()
    for operator in parsed.operators():
        assert Operator.parse(operator.key) == operator


@settings(max_examples=60, deadline=None)
@given(architectures())
def test_shapes_meet_and_counts_add_up(architecture: Architecture) -> None:
    operators = architecture.operators()
    for one, next_one in pairwise(operators):
        assert (one.out_channels, one.out_px) == (next_one.in_channels, next_one.in_px)
    assert operators[-1].in_px == -(-architecture.resolution_px // architecture.total_stride)
    assert architecture.macs == sum(o.macs for o in operators)
    assert architecture.params == sum(c.params for o in operators for c in o.convolutions)
    assert len(operators) == 2 + sum(b.repeats for b in architecture.blocks)


@settings(max_examples=60, deadline=None)
@given(architectures())
def test_identity_only_where_shapes_agree(architecture: Architecture) -> None:
    layers = iter(architecture.operators()[1:-1])
    for block in architecture.blocks:
        for index in range(block.repeats):
            layer = next(layers)
            agree = layer.stride == 1 and layer.in_channels == layer.out_channels
            if block.skip == "identity":
                assert layer.skip == ("identity" if agree else "none")
            else:
                assert layer.skip == block.skip
            assert layer.stride == (block.stride if index == 0 else 1)


@settings(max_examples=60, deadline=None)
@given(architectures())
def test_canonical_blocks_give_the_same_layers(architecture: Architecture) -> None:
    blocks = tuple(b.canonical() for b in architecture.blocks)
    assert replace(architecture, blocks=blocks).operators() == architecture.operators()


# -- what is not a network ------------------------------------------------------------------------

GOOD = "r2_k3_s22_e6_i16_o24"
GOOD8 = "r1_k3_s11_e1_i8_o8"


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("r2_k3_s22_e6_i16_o24_x9", "'x9'"),
        ("r2_k3_s22_e6_i16_o24_", "''"),
        ("r2__k3_s22_e6_i16_o24", "''"),
        ("R2_k3_s22_e6_i16_o24", "'R2'"),
        ("r2_k3_s22_e6_i16", "lacks o"),
        ("k3_s22_e6_i16_o24", "lacks r"),
        ("r2_s22_e6_i16_o24", "lacks k"),
        ("r2_k3_e6_i16_o24", "lacks s11"),
        ("r2_k3_s22_e6_o24", "lacks i"),
        ("r2_k3_s22_i16_o24", "e<expansion> and conv"),
        ("r2_k3_s22_conv_e6_i16_o24", "e<expansion> and conv"),
        ("r2_r2_k3_s22_e6_i16_o24", "'r2' is given twice"),
        ("r2_k3_s22_e6_i16_o24_noskip_pool", "'pool' is given twice"),
        ("r2_k3_s22_e6_i16_o24_noskip_noskip", "'noskip' is given twice"),
        ("r2_k4_s22_e6_i16_o24", "'k4'"),
        ("r2_k0_s22_e6_i16_o24", "'k0'"),
        ("r2_k3_s13_e6_i16_o24", "'s13'"),
        ("r2_k3_s21_e6_i16_o24", "'s21'"),
        ("r2_k3_s33_e6_i16_o24", "'s33'"),
        ("r0_k3_s22_e6_i16_o24", "'r0'"),
        ("r-1_k3_s22_e6_i16_o24", "'r-1'"),
        ("r2.0_k3_s22_e6_i16_o24", "'r2.0'"),
        ("r2_k3_s22_e0_i16_o24", "'e0'"),
        ("r2_k3_s22_e6.5_i16_o24", "'e6.5'"),
        ("r2_k3_s22_e6_i0_o24", "'i0'"),
        ("r2_k3_s22_e6_i16_o0", "'o0'"),
        ("r2_k3_s22_e6_i16_o24_se1.5", "'se1.5'"),
        ("r2_k3_s22_e6_i16_o24_se-0.25", "'se-0.25'"),
        ("r2_k3_s22_e6_i16_o24_se", "'se'"),
        ("r2_k3_s22_e6_i16_o24_se0.25e1", "'se0.25e1'"),
        ("r2_k3_s22_e6_i16_o24_senan", "'senan'"),
        ("r2_k3_s22_e6_i16_o24_se0.00001", "se_ratio"),
        ("r٣_k3_s22_e6_i16_o24", "'r٣'"),  # Arabic-Indic digits
        ("r²_k3_s22_e6_i16_o24", "'r²'"),
        ("r１_k3_s22_e6_i16_o24", "'r１'"),  # full-width
        ("r2_k3_s22_е6_i16_o24", "'е6'"),  # Cyrillic e
        ("r9999_k3_s22_e6_i16_o24", "'r9999'"),
        ("r2_k3_s22_e6_i16_o1000000", "'o1000000'"),
        ("stm32", "'stm32'"),
        ("res9999999", "'res9999999'"),
        ("mnasnet-a1", "'mnasnet-a1'"),
        ("r2_k3_s22_m0_i16_o24", "'m0'"),
        ("r2_k3_s22_m64_e6_i16_o24", "as in m184"),
        ("r2_k3_s22_m64_conv_i16_o24", "as in m184"),
        ("r2_k3_s22_fused_i16_o24", "as in m184"),
        ("r2_k3_s22_fused_conv_i16_o24", "'fused'"),
        ("r2_k3_s22_fused_edge_e6_i16_o24", "'edge' is given twice"),
        ("r2_a2_k3_s22_e6_i16_o24", "'a2'"),
        ("r2_a3_k3_s22_conv_i16_o24", "'a3'"),
        ("r2_a3_k3_s22_fused_e6_i16_o24", "'a3'"),
        ("r2_a0_k0_s22_e6_i16_o24", "'s22'"),
        ("r2_a3_k2_s22_e6_i16_o24", "'k2'"),
        ("r2_k3_s22_e6_i16_o24_gelu", "'gelu'"),
        ("r2_k3_s22_e6_i16_o24_swish_relu6", "'relu6' is given twice"),
        ("r2_k3_s22_e6_i16_o24_hse2", "'hse2'"),
    ],
)
def test_a_typo_names_its_token_and_block(word: str, named: str) -> None:
    with pytest.raises(InvalidArchitecture) as first:
        Architecture.parse(word)
    assert named in str(first.value)
    assert "block 0" in str(first.value)
    with pytest.raises(InvalidArchitecture) as second:
        Architecture.parse(f"r1_k3_s11_e6_i32_o16 {word}")
    assert named in str(second.value)
    assert "block 1" in str(second.value)


@pytest.mark.parametrize("text", ["", "   ", "\n", " · , ;", "stem8", "res96 head640"])
def test_no_block_at_all(text: str) -> None:
    with pytest.raises(InvalidArchitecture, match=r"holds no block.*r3_k5_s22"):
        Architecture.parse(text)
    with pytest.raises(InvalidArchitecture, match="at least one block"):
        Architecture((), 32)


def test_channels_that_do_not_meet() -> None:
    with pytest.raises(InvalidArchitecture, match=r"block 1 .*'i32'.*block 0 gives 24. Write i24"):
        Architecture.parse(f"{GOOD} r1_k3_s11_e6_i32_o40")
    with pytest.raises(InvalidArchitecture, match=r"block 0 .*'i16'.*the stem gives 32"):
        Architecture.parse(f"stem32 {GOOD}")


@pytest.mark.parametrize("word", ["stem0", "head0", "classes0", "res0"])
def test_settings_of_nothing(word: str) -> None:
    with pytest.raises(InvalidArchitecture, match=word):
        Architecture.parse(f"{GOOD} {word}")


# Each text, what its first layer is called, and its parameters, counted by hand.
MADE = [
    ("r1_k3_s11_m20_i8_o8_hswish", "mbconvm20_k3_s1_hswish_skip_112x112x8_8", 596),
    ("r1_k7_s11_m16_i8_o8_silu", "mbconv2_k7_s1_swish_skip_112x112x8_8", 1120),
    ("r1_k3_s22_fused_e4_i8_o12", "fused4_k3_s2_112x112x8_12", 2776),
    ("r1_k3_s22_edge_m20_i8_o12_relu6", "edgem20_k3_s2_relu6_112x112x8_12", 1744),
    ("r1_a3_k5_s22_e4_i8_o12", "mbconv4_a3_k5_s2_112x112x8_12", 1680),
    ("r1_a5_k0_s22_e4_i8_o12", "mbconv4_a5_k0_s2_112x112x8_12", 944),
    ("r1_a0_k0_s11_e4_i8_o8_noskip", "mbconv4_k0_s1_112x112x8_8", 592),
    ("r1_k3_s11_e4_i8_o8_se0.25", "mbconv4_k3_s1_se2_skip_112x112x8_8", 1106),
    ("r1_k3_s11_e4_i8_o8_hsem0.25", "mbconv4_k3_s1_hse8_skip_112x112x8_8", 1496),
    ("r1_k3_s11_m8_i8_o8", "mbconv1_k3_s1_skip_112x112x8_8", 248),
    ("r1_k3_s11_e1_i8_o8", "dsconv_k3_s1_skip_112x112x8_8", 168),
]


@pytest.mark.parametrize(("text", "key", "params"), MADE)
def test_layers_of_each_make(text: str, key: str, params: int) -> None:
    network = Architecture.parse(text)
    layer = network.operators()[1]
    assert (layer.key, layer.params) == (key, params)
    assert str(network) == text.replace("silu", "swish")
    assert layer.out_px == (56 if "s22" in text else 112)


def test_a_head_with_a_second_convolution() -> None:
    for word, key, params in (
        ("hidden20", "head40_hidden20_hswish_112x112x8_10", 1430),
        ("hiddennorm20", "head40_hiddennorm20_hswish_112x112x8_10", 1450),
        ("hiddenplain20", "head40_hiddenplain20_hswish_112x112x8_10", 1410),
    ):
        network = Architecture.parse(f"{GOOD8} head40 {word} hswish classes10")
        assert str(network) == f"{GOOD8} head40 {word} hswish classes10"
        assert (network.operators()[-1].key, network.operators()[-1].params) == (key, params)
        assert network.operators()[0].key == "stem_k3_s2_hswish_224x224x3_8"
    with pytest.raises(InvalidArchitecture, match="hidden and hiddennorm"):
        Architecture.parse(f"{GOOD8} hidden20 hiddennorm20")
    with pytest.raises(InvalidArchitecture, match="two activations"):
        Architecture.parse(f"{GOOD8} hswish swish")


def test_a_middle_widens_with_its_input() -> None:
    wide = Architecture.parse("r1_k3_s11_m184_i80_o80_hsem0.25 r1_k3_s11_e6_i80_o8").scaled(0.5)
    assert str(wide) == "r1_k3_s11_m96_i40_o40_hsem0.25 r1_k3_s11_e6_i40_o8"
    assert [o.se_channels for o in wide.operators()] == [0, 24, 0, 0]


def test_what_has_no_effect_is_not_said() -> None:
    one, other = Block(1, 3, 1, 6, 16, 16), Block(1, 3, 1, 6, 16, 16, gate="hard_sigmoid")
    assert one == other and str(other) == "r1_k3_s11_e6_i16_o16"
    assert Block(1, 3, 1, 0, 16, 16, middle=96).canonical() == one
    assert Block(1, 3, 1, 0, 16, 16, middle=16).canonical().kind == "mbconv"
    layers = {Operator("mbconv", 80, 80, 7, 3, expansion=e) for e in (184 / 80, 2.3, 2.301)}
    assert {o.key for o in layers} == {"mbconvm184_k3_s1_7x7x80_80"} and len(layers) == 1


def test_settings_given_twice() -> None:
    with pytest.raises(InvalidArchitecture, match="'res96': res is given once"):
        Architecture.parse(f"res64 {GOOD} res96")


@pytest.mark.parametrize(
    "text",
    [
        "r1_k3_s11_e99_i99999_o99999",
        "r1_k99_s11_conv_i9999_o9999",
        f"{GOOD} head999999 classes999999",
        "r999_k3_s11_e99_i999_o999",
    ],
)
def test_numbers_that_would_fill_the_memory(text: str) -> None:
    with pytest.raises(InvalidArchitecture, match=r"parameters.*limit"):
        Architecture.parse(text)


@pytest.mark.parametrize("word", ["r1_k3_s11_e6_i16_o16", "r1_k3_s22_e6_i16_o16"])
@pytest.mark.parametrize("n", [1_001, 20_000])
def test_more_layers_than_any_network_has(word: str, n: int) -> None:
    with pytest.raises(InvalidArchitecture, match="at most 1000 layers"):
        Architecture.parse(" ".join([word] * n))


def test_r999_is_a_deep_network_but_one() -> None:
    assert len(Architecture.parse("r999_k3_s11_e1_i16_o16").operators()) == 1001
    with pytest.raises(InvalidArchitecture, match="at most 1000 layers"):
        Architecture.parse("r999_k3_s11_e1_i16_o16 r2_k3_s11_e1_i16_o16")


@pytest.mark.parametrize("text", ["r" * 1_000_000, GOOD + "_" * 1_000_000, "·" * 1_000_000])
def test_messages_stay_short(text: str) -> None:
    with pytest.raises(InvalidArchitecture) as told:
        Architecture.parse(text)
    assert len(str(told.value)) < 500


@pytest.mark.parametrize(
    "change",
    [
        {"repeats": 0},
        {"repeats": -1},
        {"se_ratio": 5.0},
        {"se_ratio": -0.25},
        {"se_ratio": 1e-9},
        {"se_ratio": float("nan")},
    ],
)
def test_blocks_that_are_built_wrongly(change: dict[str, float]) -> None:
    block = replace(Block(1, 3, 1, 6, 16, 16), **change)
    with pytest.raises(InvalidArchitecture, match=f"block 0: {next(iter(change))}"):
        Architecture((block,), 16)


def test_a_map_is_never_strided_away() -> None:
    deep = " ".join(["r1_k3_s22_e1_i16_o16"] * 7)  # 256 with the stem
    assert Architecture.parse(f"{deep} res256").operators()[-1].in_px == 1
    with pytest.raises(InvalidArgument, match=r"255 px cannot be taken.*256 to 2048"):
        Architecture.parse(f"{deep} res255")
