"""A search space from a TOML file: it works as ours do, and errors name the key."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonenas import space
from phonenas.space import AdditiveTable, FileSpace, SearchSpace
from phonenas.space.errors import InvalidArgument, SettingsChanged, StoreError, UnknownName
from phonenas.testing import SpaceContract

SMALL = """\
resolution = 64
classes = 10

[stem]
filters = 16
stride = 1

[head]
filters = 320

[[blocks]]
op = "dsconv"
filters = 16
skip = "none"

[[blocks]]
op = ["conv", "mbconv"]
expansion = [3, 6]
kernel = [3, 5, 7]
se_ratio = [0, 0.25]
filters = { base = 24, factors = [0.75, 1, 1.5] }
layers = [1, 2]
stride = 2

[[blocks]]
op = "mbconv"
expansion = 4
filters = [40, 44]
layers = { base = 2, offsets = [-3, 0] }
stride = 2
skip = ["identity", "pool"]
"""
# The paper's seven blocks, relative to MobileNetV2's: filters, layers, strides.
MNASNET = "".join(
    f"""
[[blocks]]
op = ["conv", "dsconv", "mbconv"]
expansion = [3, 6]
kernel = [3, 5]
se_ratio = [0.0, 0.25]
skip = ["pool", "identity", "none"]
filters = {{ base = {filters}, factors = [0.75, 1.0, 1.25] }}
layers = {{ base = {layers}, offsets = [-1, 0, 1] }}
stride = {stride}
"""
    for filters, layers, stride in (
        (16, 1, 1),
        (24, 2, 2),
        (32, 3, 2),
        (64, 4, 2),
        (96, 3, 1),
        (160, 3, 2),
        (320, 1, 1),
    )
)


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


class TestContract(SpaceContract):
    @pytest.fixture
    def space(self, tmp_path: Path) -> SearchSpace:
        return space.get(written(tmp_path, SMALL))


def test_a_file_decides_what_it_lists(tmp_path: Path) -> None:
    mine = space.get(written(tmp_path, SMALL))
    assert dict(mine.decisions) == {
        "block2_op": ("conv", "mbconv3", "mbconv6"),
        "block2_kernel": (3, 5, 7),
        "block2_se": (0, 0.25),
        "block2_filters": (0.75, 1, 1.5),
        "block2_layers": (1, 2),
        "block3_skip": ("identity", "pool"),
        "block3_filters": (40, 44),
        "block3_layers": (-3, 0),
    }
    assert mine.size == 3 * 3 * 2 * 3 * 2 * 2 * 2 * 2
    network = mine.decode([2, 1, 1, 0, 1, 1, 1, 0])
    assert str(network) == (
        "r1_k3_s11_e1_i16_o16_noskip r2_k5_s22_e6_i16_o24_se0.25 r1_k3_s22_e4_i24_o44_pool "
        "head320 classes10 stemstride1 res64"
    )
    # 0.75 · 24 = 18 channels are rounded to 24, the nearest multiple of 8 not below 0.9 of it.
    assert [o.out_channels for o in mine.decode([0] * 8).operators()] == [16, 16, 24, 40, 10]


@pytest.mark.slow
def test_mnasnet_as_a_file_is_mnasnet(tmp_path: Path) -> None:
    mine, ours = space.get(written(tmp_path, MNASNET)), space.get("mnasnet")
    assert mine.size == ours.size == 432**7
    assert dict(mine.decisions).keys() == dict(ours.decisions).keys()
    assert mine.operators() == ours.operators()
    genomes = ours.sample(np.random.default_rng(0), 60)
    assert [mine.decode(g) for g in genomes] == [ours.decode(g) for g in genomes]
    assert np.array_equal(mine.identities(genomes), ours.identities(genomes))
    assert np.array_equal(
        mine.encode(mine.decode(genomes[0])), ours.encode(ours.decode(genomes[0]))
    )
    assert space.zoo.network("mobilenet-v2").blocks[0] not in mine


_ITEMS = {
    "op": st.sampled_from(['"conv"', '"dsconv"', '["dsconv", "conv"]']),
    "kernel": st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=3, unique=True),
    "se_ratio": st.lists(st.sampled_from([0, 0.1, 0.25]), min_size=1, unique=True),
    "skip": st.sampled_from(['"pool"', '["none", "identity"]', '["pool", "none"]']),
    "filters": st.lists(st.integers(1, 40), min_size=2, max_size=3, unique=True),
    "layers": st.lists(st.integers(1, 3), min_size=1, unique=True),
    "stride": st.sampled_from([1, 2]),
}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.fixed_dictionaries(_ITEMS), min_size=1, max_size=3), st.integers(0, 99))
def test_any_file_samples_mutates_encodes_and_sums(
    tmp_path: Path, blocks: list[dict[str, object]], seed: int
) -> None:
    text = "".join("\n[[blocks]]\n" + "".join(f"{k} = {v}\n" for k, v in b.items()) for b in blocks)
    mine = space.get(written(tmp_path, text), 32)
    rng = np.random.default_rng(seed)
    genomes = mine.sample(rng, 8)
    mutants = mine.mutate(genomes, rng)
    macs = AdditiveTable(mine, lambda o: o.macs)(mutants)
    for genome, mutant, total in zip(genomes, mutants, macs, strict=True):
        network = mine.decode(mutant)
        # Two squeeze ratios may give one width: networks are the same when their operators are.
        assert network.operators() != mine.decode(genome).operators()
        assert mine.decode(mine.encode(network)).operators() == network.operators()
        assert space.Architecture.parse(str(network)) == network
        assert total == network.macs


WRONG = {
    "resolution = 0": "mine.toml: resolution: 0 is not a whole number from 1 to 2,048",
    "resolution = [224, 192]": "resolution: is one value for all networks, not a list",
    "classes = true": "classes: True is not a whole number from 1 to 100,000",
    "colour = 1": "colour: unknown key. Known: blocks, classes, head, resolution, stem.",
    "stem = 32": "stem: 32 is not a table",
    "[stem]\nfilter = 32": "stem.filter: unknown key. Did you mean 'filters'?",
    "[stem]\nstride = 3": "stem.stride: 3 is none of 1, 2",
    "[head]\nfilters = -1": "head.filters: -1 is not a whole number from 1 to 10,000",
}
WRONG_BLOCK = {
    "kernel = [3, 4]": r"blocks[2].kernel: 4 is not odd (blocks are counted from 1)",
    "kernel = [3, 3]": "blocks[2].kernel: 3 stands twice",
    "kernel = []": "blocks[2].kernel: a list has 1 to 127 options, got 0",
    "kernel = 33": "blocks[2].kernel: 33 is not a whole number from 1 to 31",
    "kernel = '3'": "blocks[2].kernel: '3' is not a whole number from 1 to 31",
    "stride = [1, 2]": "blocks[2].stride: is one value for all networks, not a list",
    "stride = 3": "blocks[2].stride: 3 is none of 1, 2",
    "se_ratio = 1.5": "blocks[2].se_ratio: 1.5 is not a number from 0.0001 to 1, and not 0",
    "se = 0.25": "blocks[2].se: unknown key. Known: expansion, filters,",
    "skip = 'identities'": "blocks[2].skip: 'identities' is none of identity, pool, none",
    "layers = 0": "blocks[2].layers: 0 is not a whole number from 1 to 100",
    "layers = { base = 2 }": "blocks[2].layers.offsets: is missing",
    "layers = { base = 2, factors = 1 }": "blocks[2].layers.factors: unknown key",
    "layers = { base = [2], offsets = 1 }": "blocks[2].layers.base: is one value for all networks",
    "expansion = [1, 6]": "blocks[2].expansion: 1 is not a whole number from 2 to 99",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_key_is_named(tmp_path: Path, line: str) -> None:
    blocks = "\n[[blocks]]\nop = 'dsconv'\nfilters = [16, 24]\n"
    with pytest.raises(InvalidArgument) as error:
        space.get(written(tmp_path, f"{line}\n{blocks}"))
    assert WRONG[line] in str(error.value)


@pytest.mark.parametrize("line", WRONG_BLOCK)
def test_a_wrong_key_of_a_block_is_named(tmp_path: Path, line: str) -> None:
    text = (
        "[[blocks]]\nop = 'dsconv'\nfilters = [16, 24]\n[[blocks]]\nop = 'mbconv'\nfilters = 24\n"
    )
    expansion = "" if line.startswith("expansion") else "expansion = 6\n"
    with pytest.raises(InvalidArgument) as error:
        space.get(written(tmp_path, f"{text}{expansion}{line}\n"))
    assert WRONG_BLOCK[line] in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "blocks: needs 1 to 100 tables, each headed [[blocks]]"),
        ("blocks = 3", "blocks: needs 1 to 100 tables"),
        ("blocks = [3]", "blocks[1]: 3 is not a table"),
        ("[[blocks]]\nfilters = 16", "blocks[1].op: is missing"),
        ("[[blocks]]\nop = 'conv'", "blocks[1].filters: is missing"),
        ("[[blocks]]\nop = 'mbconv'\nfilters = 16", "blocks[1].expansion: is missing"),
        (
            "[[blocks]]\nop = 'conv'\nexpansion = 6\nfilters = 16",
            "blocks[1].expansion: is of mbconv only, and op is conv",
        ),
        ("[[blocks]]\nop = 'sepconv'\nfilters = 16", "'sepconv' is none of conv, dsconv, mbconv"),
        ("[[blocks]]\nop = 'conv'\nfilters = 16", "blocks: leaves nothing to choose"),
        (
            f"[[blocks]]\nop = 'conv'\nfilters = {list(range(8, 108))}\n"
            f"[[blocks]]\nop = 'conv'\nfilters = {list(range(8, 109))}\nkernel = [1, 3]",
            "blocks[2]: its lists, with the filters of the block before it, make 20,200 choices; "
            "20,000 is the most",
        ),
        (
            "[[blocks]]\nop = ['conv', 'mbconv']\nexpansion = 99\nfilters = 10000\n"
            "[[blocks]]\nop = 'conv'\nkernel = 5\nfilters = 10000",
            "blocks: its largest network has",
        ),
        ("[[blocks]\n", "mine.toml is not a TOML file: "),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        space.get(written(tmp_path, text))
    assert words in str(error.value)


def test_the_errors_that_the_page_prints_are_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "extending.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    printed = page.split("```text\n")[1].split("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    errors = []
    for right, wrong in (
        ("kernel = [3, 5]\n", "kernel = [3, 4]\n"),
        ("kernel = [3, 5, 7]\n", "se = 0.25\n"),
    ):
        assert example.count(right) == 1
        Path("my_space.toml").write_text(example.replace(right, wrong), encoding="utf-8")
        with pytest.raises(InvalidArgument) as error:
            space.get("my_space.toml")
        errors.append(str(error.value))
    assert printed == errors


def test_a_resolution_that_its_strides_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="a resolution of 3 px"):
        space.get(written(tmp_path, SMALL), 3)


def test_a_name_holds_the_content_and_reopens_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(SMALL)
    mine = space.get("./mine.toml")
    assert mine.name.startswith("mine.toml@") and len(mine.name) == len("mine.toml@") + 12
    assert repr(mine) == f"{mine.name} (resolution=64)"
    copy = ForkingPickler.loads(ForkingPickler.dumps(mine))  # as to a worker process
    again = space.get(mine.name, 96)
    assert again.name == mine.name and again.resolution_px == 96
    assert copy.decode([0] * 8) == mine.decode([0] * 8)
    Path("mine.toml").write_text("# another comment\n" + SMALL.replace(" = ", "="))
    assert space.get("mine.toml").name == mine.name
    Path("mine.toml").write_text(SMALL.replace("[40, 44]", "[40, 48]"))
    assert space.get("mine.toml").name != mine.name
    with pytest.raises(SettingsChanged, match=mine.name.partition("@")[2]):
        space.get(mine.name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="there is no search space file .*none.toml"):
        space.get(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        space.get(str(tmp_path / "folder.toml"))
    (tmp_path / "large.toml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(InvalidArgument, match="larger than 1 MiB"):
        space.get(str(tmp_path / "large.toml"))
    with pytest.raises(InvalidArgument, match="ends in .toml"):
        FileSpace("mine.json")
