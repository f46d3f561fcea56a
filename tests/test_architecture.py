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


# -- parse and str are inverse -----------------------------------------------------------------


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    channels = st.one_of(st.integers(1, 64), st.sampled_from([96, 112, 320]))
    stem = before = draw(channels)
    blocks = []
    total_stride = stem_stride = draw(st.sampled_from([2, 2, 1]))
    for _ in range(draw(st.integers(1, 8))):
        after = draw(st.one_of(st.just(before), channels))
        block = Block(
            repeats=draw(st.integers(1, 5)),
            kernel=draw(st.sampled_from([1, 3, 5, 7, 11])),
            stride=draw(st.sampled_from([1, 1, 2])),
            expansion=(expansion := draw(st.sampled_from([0, 1, 2, 3, 4, 6, 10]))),
            in_channels=before,
            out_channels=after,
            se_ratio=draw(st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(1e-4, 1))),
            skip=draw(st.sampled_from(["identity", "pool", "none"])),
            linear=expansion == 0 and draw(st.booleans()),
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
    )


@settings(max_examples=150, deadline=None)
@given(architectures())
def test_parse_and_str_are_inverse(architecture: Architecture) -> None:
    parsed = Architecture.parse(str(architecture))
    assert parsed == architecture
    assert hash(parsed) == hash(architecture)
    assert str(parsed) == str(architecture)
    assert parsed.operators() == architecture.operators()


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


# -- what is no network ------------------------------------------------------------------------

GOOD = "r2_k3_s22_e6_i16_o24"


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
    "change", [{"repeats": 0}, {"repeats": -1}, {"se_ratio": 5.0}, {"se_ratio": -0.25},
               {"se_ratio": 1e-9}, {"se_ratio": float("nan")}],
)  # fmt: skip
def test_blocks_that_are_built_wrongly(change: dict[str, float]) -> None:
    block = replace(Block(1, 3, 1, 6, 16, 16), **change)
    with pytest.raises(InvalidArchitecture, match=f"block 0: {next(iter(change))}"):
        Architecture((block,), 16)


def test_a_map_is_never_strided_away() -> None:
    deep = " ".join(["r1_k3_s22_e1_i16_o16"] * 7)  # 256 with the stem
    assert Architecture.parse(f"{deep} res256").operators()[-1].in_px == 1
    with pytest.raises(InvalidArgument, match=r"255 px cannot be taken.*256 to 2048"):
        Architecture.parse(f"{deep} res255")
