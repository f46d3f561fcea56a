"""Image sets: what is read, in which order, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from phonenas.data import ImageSet, held_out, read_images
from phonenas.data.images.decoding import check, decode
from phonenas.data.images.idx import read_idx
from phonenas.data.images.npz import read_npz
from phonenas.space.errors import (
    InvalidArgument,
    InvalidImage,
    PhonenasError,
    StoreError,
    UnsupportedFormat,
)

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def sent(images: ImageSet) -> ImageSet:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(images))  # noqa: S301 - our own bytes


def arrays(n: int = 12, classes: int = 3, side: int = 8) -> dict[str, np.ndarray]:
    return {
        "x_train": noise(n, side, side, 3),
        "y_train": np.arange(n) % classes,
        "x_test": noise(classes, side, side, 3),
        "y_test": np.arange(classes),
    }


def save(path: Path, **named: np.ndarray) -> Path:
    np.savez(path, **named)
    return path


def folders(root: Path, parts=("train", "val"), classes=("cat", "ant"), images: int = 3) -> Path:
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(images):
                Image.fromarray(noise(10, 12, 3)).save(root / part / name / f"{number}.png")
    return root


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def idx_folder(root: Path, packed: bool = False) -> tuple[Path, np.ndarray]:
    x = noise(7, 5, 6)
    for name, array in (
        ("train-images-idx3-ubyte", x),
        ("train-labels-idx1-ubyte", np.arange(7) % 4),
        ("t10k-images-idx3-ubyte", x[:2]),
        ("t10k-labels-idx1-ubyte", np.array([3, 1])),
    ):
        content = idx(array)
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (root / name).write_bytes(content)
    return root, x


# -- arrays ---------------------------------------------------------------------------------------


def test_an_npz_file_gives_its_parts_as_they_stand(tmp_path):
    named = arrays()
    path = save(tmp_path / "set.npz", **named, classes=np.array(["a", "b", "c"]))
    for asked in (path, tmp_path, str(path)):
        train, test = read_images(asked), read_images(asked, "test")
        assert train.classes == test.classes == ("a", "b", "c")
        assert np.array_equal(train.array(), named["x_train"])
        assert np.array_equal(test.labels, [0, 1, 2])
        assert test.labels.dtype == np.int64
        assert np.array_equal(train.image(5), named["x_train"][5])
    assert len(train) == 12
    assert str(path) in repr(train)


def test_grey_images_are_shown_as_three_equal_planes_without_memory_for_them():
    x = noise(4, 6, 6)
    images = ImageSet.of(x, [0, 1, 1, 0])
    assert images.array().shape == (4, 6, 6, 3)
    assert images.array().strides[3] == 0
    assert all(np.array_equal(images.image(2)[..., c], x[2]) for c in range(3))
    assert np.array_equal(ImageSet.of(x[..., None], [0, 1, 1, 0]).array(), images.array())


def test_labels_may_be_a_column_of_any_integers_and_classes_are_numbered():
    images = ImageSet.of(noise(3, 4, 4, 3), np.array([[1], [0], [2]], np.uint8))
    assert images.labels.tolist() == [1, 0, 2]
    assert images.classes == ("0", "1", "2")


def test_a_set_does_not_freeze_or_follow_the_arrays_of_its_giver():
    x, y = noise(3, 4, 4, 3), np.array([0, 1, 0])
    images = ImageSet.of(x, y)
    with pytest.raises(ValueError):
        images.labels[0] = 1
    with pytest.raises(ValueError):
        images.array()[0] = 0
    y[0] = 1
    x[0] = 0  # theirs still, and writable
    assert images.labels[0] == 0


def test_digests_tell_sets_apart_and_agree_on_equal_ones():
    x, y = noise(6, 4, 4, 3), np.array([0, 1, 2, 0, 1, 2])
    one = ImageSet.of(x, y)
    assert one.digest == ImageSet.of(x.copy(), y.copy(), source="elsewhere").digest
    other = x.copy()
    other[3, 1, 2, 0] ^= 1
    changed = [
        ImageSet.of(other, y),
        ImageSet.of(x, y[::-1].copy()),
        ImageSet.of(x, y, classes=("a", "b", "c")),
        ImageSet.of(x, y, classes=("ab", "c", "d")),
        ImageSet.of(x.reshape(6, 2, 8, 3), y),
        one.subset([0, 1, 2]),
    ]
    assert len({one.digest, *(c.digest for c in changed)}) == 1 + len(changed)
    assert one.subset(range(6)).digest == one.digest
    assert sent(one).digest == one.digest


def test_a_subset_keeps_order_and_classes_and_refuses_what_is_not_there():
    images = ImageSet.of(noise(5, 4, 4, 3), [0, 1, 2, 1, 0])
    part = images.subset(np.array([4, 1]))
    assert part.labels.tolist() == [0, 1]
    assert part.classes == images.classes
    assert np.array_equal(part.image(0), images.image(4))
    assert len(images.subset([])) == 0
    for wrong in ([5], [-1], [0.5], [[0]]):
        with pytest.raises(InvalidArgument):
            images.subset(wrong)
    with pytest.raises(InvalidArgument, match="5 images, numbered from 0"):
        images.image(5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": np.array([0, 1, 2, -1] * 3)}, "at least 0; image 3 has -1"),
        ({"y_train": np.arange(12) + 1}, "class 0 has no image"),
        ({"y_train": np.array([0] * 11 + [2**40])}, "class 1 has no image"),
        ({"y_train": np.array([0] * 11 + [2**64 - 1], np.uint64)}, "not a class number"),
        ({"y_train": np.arange(12.0)}, "whole numbers from 0; these are float64"),
        ({"y_train": np.full(12, np.nan)}, "whole numbers from 0; these are float64"),
        ({"y_train": np.arange(12) % 2 == 0}, "these are bool"),
        ({"y_train": np.eye(12, dtype=int)}, r"shape \(12,\)"),
        ({"y_train": np.arange(11) % 3}, "12 images need labels"),
        ({"y_train": np.array(3)}, "12 images need labels"),
        ({"x_train": np.full((12, 4, 4, 3), np.nan)}, r"float64.*astype\('uint8'\)"),
        ({"x_train": noise(12, 4, 4, 3).astype(np.int16)}, "these are int16"),
        ({"x_train": noise(12, 3, 8, 8)}, r"transpose\(0, 2, 3, 1\)"),
        ({"x_train": noise(12, 8, 8, 4)}, r"these are \(12, 8, 8, 4\)"),
        ({"x_train": noise(12, 64)}, r"these are \(12, 64\)"),
        ({"x_train": noise(0, 8, 8, 3)}, "holds no image"),
        ({"classes": np.array(["a", "b"])}, r"below 2.*image 2 has 2"),
        ({"classes": np.array(["a", "b", "a"])}, "no name stands twice"),
        ({"classes": np.array([1, 2, 3])}, "a row of strings"),
        ({"classes": np.array([], "U1")}, "has no class"),
    ],
)
def test_arrays_that_are_no_image_set_are_refused_by_name(tmp_path, change, words):
    path = save(tmp_path / "set.npz", **{**arrays(), **change})
    with pytest.raises(InvalidArgument, match=words) as caught:
        read_images(path)
    assert str(path) in str(caught.value)


def test_labels_of_the_test_part_are_held_against_the_classes_of_training(tmp_path):
    path = save(tmp_path / "set.npz", **{**arrays(), "y_test": np.array([0, 3, 1])})
    assert len(read_images(path)) == 12
    with pytest.raises(InvalidArgument, match=r"y_test.*below 3.*image 1 has 3"):
        read_images(path, "test")
    few = save(tmp_path / "few.npz", **{**arrays(), "x_test": noise(1, 8, 8, 3), "y_test": [2]})
    assert read_images(few, "test").classes == ("0", "1", "2")


def test_missing_arrays_are_named_beside_those_there(tmp_path):
    named = arrays()
    path = save(tmp_path / "set.npz", x_train=named["x_train"], y_train=named["y_train"])
    with pytest.raises(InvalidArgument, match="no x_val and no y_val; it holds x_train, y_train"):
        read_images(path, "test")
    val = save(
        tmp_path / "val.npz",
        x_train=named["x_train"],
        y_train=named["y_train"],
        x_val=named["x_test"],
        y_val=named["y_test"],
    )
    assert np.array_equal(read_images(val, "test").array(), named["x_test"])


def test_objects_in_an_npz_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    for key in ("x_train", "y_train", "classes"):
        named = {**arrays(), key: np.array([Trap()] * 12, object)}
        path = save(tmp_path / f"{key}.npz", **named)
        with pytest.raises(UnsupportedFormat, match=f"{key}.npy holds Python objects"):
            read_images(path)


@pytest.mark.fault(
    "An .npz file of images is cut short.",
    "`cannot be read as an npz file: …`",
    "Copy or write it again.",
)
def test_an_npz_cut_short_anywhere_is_damaged(tmp_path):
    whole = save(tmp_path / "set.npz", **arrays()).read_bytes()
    for end in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.npz"
        path.write_bytes(whole[:end])
        with pytest.raises(UnsupportedFormat, match="cut.npz cannot be read as an npz file"):
            read_images(path)


@pytest.mark.fault(
    "An .npz file says that it holds more than it does.",
    "`disagrees with its size`; nothing of it is read",
    "The same.",
)
def test_a_header_that_promises_more_than_the_file_has_is_refused_unread(tmp_path):
    path = tmp_path / "set.npz"
    lie = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        lie, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 32, 32, 3)}
    )
    save(path, **arrays())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_train.npy", lie.getvalue() + b"\0" * 100)
    with pytest.raises(UnsupportedFormat, match="disagrees with its size"):
        read_images(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_set_or_an_error_of_ours_npz(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    content = bytearray(_valid_npz())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    for part in ("train", "test"):
        try:
            found = read_npz(path, part)
        except PhonenasError:
            continue
        assert found.labels.max() < len(found.classes)
        assert found.array().dtype == np.uint8


def _valid_npz() -> bytes:
    if not hasattr(_valid_npz, "content"):
        made = io.BytesIO()
        np.savez(
            made,
            x_train=np.zeros((3, 2, 2, 3), np.uint8),
            y_train=np.array([0, 1, 1]),
            x_test=np.zeros((1, 2, 2), np.uint8),
            y_test=np.array([0]),
            classes=np.array(["a", "b"]),
        )
        _valid_npz.content = made.getvalue()
    return _valid_npz.content


# -- idx ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_and_packed(tmp_path, packed):
    folder, x = idx_folder(tmp_path, packed)
    train, test = read_images(folder), read_images(folder, "test")
    assert np.array_equal(train.array()[..., 1], x)
    assert train.labels.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert train.classes == test.classes == ("0", "1", "2", "3")
    assert test.labels.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"", "begins with nothing"),
        ("train-images-idx3-ubyte", b"PK\3\4" + b"\0" * 50, "not with 00 00"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\3" + b"\0" * 12, "type 0x0d"),
        ("train-images-idx3-ubyte", b"\0\0\x08\1\0\0\0\7" + b"\0" * 7, "with 1 dimensions"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3\0\0\0\7", "before its dimensions do"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3" + b"\xff" * 12, "more than the memory"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3" + b"\0\0\x02\x00" * 3, "ends after 0"),
        ("train-labels-idx1-ubyte", idx(np.arange(7) % 4) + b"\0", "is longer than"),
    ],
)
def test_idx_files_that_lie_are_refused(tmp_path, name, content, words):
    folder, _ = idx_folder(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(UnsupportedFormat, match=words) as caught:
        read_images(folder)
    assert name in str(caught.value)


def test_idx_parts_must_agree_and_be_there(tmp_path):
    folder, _ = idx_folder(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([3, 9])))
    with pytest.raises(InvalidArgument, match="below 4.*image 1 has 9"):
        read_images(folder, "test")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InvalidArgument, match="no t10k-labels-idx1-ubyte"):
        read_images(folder, "test")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(6) % 4))
    with pytest.raises(InvalidArgument, match="7 images need labels"):
        read_images(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(0)))
    with pytest.raises(InvalidArgument, match="holds no label"):
        read_images(folder)


def test_a_packed_idx_file_cut_short_is_damaged(tmp_path):
    folder, _ = idx_folder(tmp_path, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for end in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UnsupportedFormat, match="cannot be read as an idx file"):
            read_images(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b"\0\0\x08\3" + b),
    labels=st.binary(max_size=20) | st.binary(max_size=20).map(lambda b: b"\0\0\x08\1\0\0\0" + b),
    packed=st.booleans(),
)
def test_any_bytes_are_a_set_or_an_error_of_ours_idx(images, labels, packed, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / f"fuzzed{packed}"
    folder.mkdir(exist_ok=True)
    for what, content in (("images-idx3", images), ("labels-idx1", labels)):
        name = f"train-{what}-ubyte" + (".gz" if packed else "")
        (folder / name).write_bytes(content)
    try:
        found = read_idx(folder, "train")
    except PhonenasError:
        return
    assert len(found) == len(found.array())


# -- folders --------------------------------------------------------------------------------------


def test_folders_give_classes_and_files_in_sorted_order(tmp_path):
    root = folders(tmp_path)
    train, test = read_images(root), read_images(root, "test")
    assert train.classes == test.classes == ("ant", "cat")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [train.name(i) for i in (0, 2, 3)] == ["ant/0.png", "ant/2.png", "cat/0.png"]
    with Image.open(root / "train" / "cat" / "1.png") as image:
        assert np.array_equal(train.image(4), np.asarray(image))
    assert train.array() is None
    assert test.source == str(root / "val")
    (root / "test").mkdir()
    with pytest.raises(InvalidArgument, match="test has no folder"):  # test goes before val
        read_images(root, "test")


def test_a_set_of_folders_carries_names_alone(tmp_path):
    images = read_images(folders(tmp_path))
    assert len(pickle.dumps(images)) < 2000
    again = sent(images)
    assert again.digest == images.digest
    assert np.array_equal(again.image(5), images.image(5))
    part = images.subset([5, 0])
    assert [part.name(0), part.name(1)] == ["cat/2.png", "ant/0.png"]
    assert part.digest != images.digest


def test_what_is_no_image_by_its_name_is_passed_over(tmp_path):
    root = folders(tmp_path)
    whole = read_images(root).digest
    for name in ("README", "notes.txt", ".DS_Store", "._0.png", ".hidden.jpg", "0.png.part"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "LICENSE").write_text("x")
    (root / "train" / "ant" / "folder.png").mkdir()
    assert read_images(root).digest == whole
    (root / "train" / "ant" / "images").mkdir()
    Image.fromarray(noise(4, 4, 3)).save(root / "train" / "ant" / "images" / "deep.JPEG")
    names = read_images(root)
    assert [names.name(i) for i in range(4)][-1] == "ant/images/deep.JPEG"


def test_an_empty_class_folder_is_named(tmp_path):
    root = folders(tmp_path)
    (root / "val" / "dog").mkdir()
    with pytest.raises(InvalidArgument, match="only .*val has dog"):
        read_images(root)
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / "README").write_text("none yet")
    for part in ("train", "test"):
        with pytest.raises(InvalidArgument, match="class 'dog' is empty"):
            read_images(root, part)


def test_folders_that_are_missing_or_something_else_are_named(tmp_path):
    with pytest.raises(InvalidArgument, match="there is no"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(InvalidArgument, match="is not a path|there is no"):
        read_images("a\0b")
    with pytest.raises(InvalidArgument, match="in a known layout: train/CLASS"):
        read_images(tmp_path)
    (tmp_path / "train").write_text("a file")
    with pytest.raises(InvalidArgument, match="train is a file"):
        read_images(tmp_path)
    with pytest.raises(InvalidArgument, match="is a file, and no .npz"):
        read_images(tmp_path / "train")
    root = folders(tmp_path / "set", parts=("train",))
    with pytest.raises(InvalidArgument, match="neither test nor val"):
        read_images(root, "test")
    assert len(read_images(root)) == 6
    with pytest.raises(InvalidArgument, match="part 'train'"):
        read_images(root, "dev")
    with pytest.raises(InvalidArgument, match="stop or skip, got 'never'"):
        read_images(root, broken="never")
    two = tmp_path / "two"
    two.mkdir()
    save(two / "a.npz", **arrays())
    save(two / "b.npz", **arrays())
    with pytest.raises(InvalidArgument, match="a.npz, b.npz"):
        read_images(two)


def test_links_are_followed_and_their_loops_and_ends_are_not(tmp_path):
    root = folders(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(root / "train")
    assert read_images(linked).digest == read_images(root).digest
    (root / "train" / "ant" / "loop").symlink_to(root / "train")
    assert len(read_images(root)) == 6
    (root / "train" / "ant" / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InvalidImage, match="ant/gone.png"):
        read_images(root)
    kept = read_images(root, broken="skip")
    assert kept.skipped == ("ant/gone.png",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_named(tmp_path):
    root = folders(tmp_path)
    (root / "train" / "cat").chmod(0)
    try:
        with pytest.raises(StoreError, match="train/cat cannot be read"):
            read_images(root)
    finally:
        (root / "train" / "cat").chmod(0o755)


def test_a_folder_that_the_disk_refuses_is_named(tmp_path, monkeypatch):
    root = folders(tmp_path)
    real = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match="train/cat cannot be read: Permission denied"):
        read_images(root)


# -- broken and odd images ------------------------------------------------------------------------


def broken_set(root: Path) -> tuple[Path, list[str]]:
    """Folders with every kind of broken file in the class `ant`."""
    folders(root)
    at = root / "train" / "ant"
    Image.fromarray(noise(64, 64, 3)).save(at / "whole.jpg")
    whole = (at / "whole.jpg").read_bytes()
    png = (at / "0.png").read_bytes()
    (at / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (at / "cut.png").write_bytes(png[: len(png) // 2])
    (at / "empty.jpg").write_bytes(b"")
    (at / "header.jpg").write_bytes(whole[:20])
    (at / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (at / "text.jpg").write_text("no image")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    (at / "sum.png").write_bytes(flipped)
    names = ("cut.jpg", "cut.png", "empty.jpg", "header.jpg", "script.png", "sum.png", "text.jpg")
    return root, [f"ant/{name}" for name in names]


def test_files_that_are_no_images_by_name_are_counted_in_a_warning(tmp_path, caplog):
    root = folders(tmp_path)
    read_images(root)
    assert caplog.text == ""
    for name in ("a.HEIC", "b.heic", "notes", ".hidden"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    (root / "train" / "cat" / "folder.gif").mkdir()
    with caplog.at_level("WARNING", logger="phonenas"):
        assert len(read_images(root)) == 6
    assert (
        f"{root / 'train'}: files left out because their names are not those of images: "
        in caplog.text
    )
    assert "2 .heic, 1 without ending" in caplog.text and ".gif" not in caplog.text


def test_broken_images_are_skipped_by_choice_and_listed(tmp_path, caplog):
    root, names = broken_set(tmp_path)
    with caplog.at_level("WARNING", logger="phonenas"):
        images = read_images(root, broken="skip")
    assert list(images.skipped) == names
    total = len(images) + len(names)
    assert f"{len(names)} of {total} images of {images.source} are left out" in caplog.text
    assert len(images) == 7
    assert all(any(name in line for line in caplog.messages) for name in names)
    for i in range(len(images)):
        assert images.image(i).ndim == 3
    assert images.digest == read_images(root, broken="skip").digest
    assert sent(images).skipped == images.skipped


@pytest.mark.fault(
    "An image of a folder is broken or empty.",
    "`cannot be read as an image`; `1 files without a byte`",
    "Replace or remove it, or leave broken images out: --broken skip.",
)
def test_broken_images_stop_the_reading_with_their_name(tmp_path):
    root, names = broken_set(tmp_path)
    with pytest.raises(InvalidImage, match=r"1 files without a byte: ant/empty.jpg.*--broken skip"):
        read_images(root)
    (root / "train" / "ant" / "empty.jpg").unlink()
    images = read_images(root)
    stopped = []
    for i in range(len(images)):
        try:
            images.image(i)
        except InvalidImage as error:
            assert str(images.path(i)) in str(error)
            stopped.append(images.name(i))
    assert stopped == [name for name in names if "empty" not in name]


def test_a_class_of_broken_images_alone_is_empty(tmp_path):
    root = folders(tmp_path, images=1)
    (root / "train" / "cat" / "0.png").write_bytes(b"x")
    with pytest.raises(InvalidArgument, match=r"class 'cat'.*is empty.*cat/0.png"):
        read_images(root, broken="skip")


def test_every_colour_mode_becomes_rgb(tmp_path):
    root = folders(tmp_path, classes=("a",), parts=("train",), images=1)
    at = root / "train" / "a"
    (at / "0.png").unlink()
    grey = noise(6, 6)
    rgb = Image.fromarray(noise(6, 6, 3))
    wide = np.arange(36, dtype=np.uint16).reshape(6, 6) * 1800
    seethrough = rgb.convert("P")
    seethrough.info["transparency"] = b"\x00\x80"
    made = {
        "bit.png": Image.fromarray(grey).convert("1"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "grey.png": Image.fromarray(grey),
        "la.png": Image.fromarray(grey).convert("LA"),
        "palette.png": seethrough,
        "rgba.png": rgb.convert("RGBA"),
        "webp.webp": rgb,
        "wide.png": Image.fromarray(wide),
        "wide.tif": Image.fromarray(wide),
    }
    for name, image in made.items():
        image.save(at / name)
    images = read_images(root)
    seen = {images.name(i)[2:]: images.image(i) for i in range(len(images))}
    assert {x.shape for x in seen.values()} == {(6, 6, 3)}
    assert {x.dtype for x in seen.values()} == {np.dtype(np.uint8)}
    assert np.array_equal(seen["grey.png"][..., 2], grey)
    assert np.array_equal(seen["rgba.png"], np.asarray(rgb))
    for name in ("wide.png", "wide.tif"):
        assert np.array_equal(seen[name][..., 0], np.round(wide / 257).astype(np.uint8))
    assert read_images(root, broken="skip").skipped == ()
    Image.fromarray(noise(6, 6).astype(np.float32)).save(at / "float.tif")
    with pytest.raises(InvalidImage, match="how bright white is"):
        read_images(root).image(2)


def test_orientation_tags_are_not_applied(tmp_path):
    root = folders(tmp_path, classes=("a",), parts=("train",), images=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(4, 9, 3)).save(root / "train" / "a" / "z.jpg", exif=exif)
    assert read_images(root).image(1).shape == (4, 9, 3)


@pytest.mark.fault(
    "An image says that it has far too many pixels.",
    "`says that it has more than … pixels`; it is not decoded",
    "Make it smaller, or take it out of the set.",
)
def test_an_image_of_too_many_pixels_is_refused_undecoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    root = folders(tmp_path)  # of 120 pixels each: Pillow warns
    Image.fromarray(noise(40, 40, 3)).save(root / "train" / "ant" / "vast.png")  # and here it stops
    images = read_images(root)
    for i in (0, 3):
        with pytest.raises(InvalidImage, match="more than 100 pixels"):
            images.image(i)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_bytes_are_an_image_or_an_error_of_ours(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    kind = data.draw(st.sampled_from(("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")))
    written = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 90)).save(written, kind)
    content = bytearray(written.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    told = check(path)
    try:
        pixels = decode(path)
    except InvalidImage as error:
        assert told == str(error)
    else:
        assert told == ""
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


# -- held out -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0.02, 0.98),
    seed=st.integers(0, 2**32),
)
def test_parts_held_out_are_stratified_disjoint_and_whole(sizes, share, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(seed).permutation(labels)
    # Each image is its own number, so that none can be taken for another.
    numbers = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2)
    images = ImageSet.of(numbers, labels)
    try:
        train, held = held_out(images, share, seed)
    except InvalidArgument:
        room = sum(s - 1 for s in sizes)
        assert room == 0 or share * len(labels) < 1 or max(sizes) == 1 or share * max(sizes) < 1
        return
    taken = [s.pixels[:, 0, :].copy().view(np.uint16)[:, 0].tolist() for s in (train, held)]
    assert sorted(taken[0] + taken[1]) == list(range(len(labels)))
    assert taken[0] == sorted(taken[0])
    assert train.classes == held.classes == images.classes
    for label, size in enumerate(sizes):
        out = int((held.labels == label).sum())
        assert out <= size - 1
        assert abs(out - min(share * size, size - 1)) <= 1
    if all(share * s <= s - 1 for s in sizes):
        assert len(held) == round(share * len(labels))
    again = held_out(images, share, seed)
    assert again[1].digest == held.digest


def test_another_seed_holds_out_others():
    images = ImageSet.of(noise(60, 2, 2), np.arange(60) % 3)
    assert held_out(images, 0.3, 1)[1].digest != held_out(images, 0.3, 2)[1].digest


def test_shares_that_leave_nothing_are_refused():
    images = ImageSet.of(noise(4, 2, 2), [0, 0, 1, 1])
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(InvalidArgument, match="between 0 and 1"):
            held_out(images, share)
    with pytest.raises(InvalidArgument, match="seed"):
        held_out(images, 0.5, -1)
    with pytest.raises(InvalidArgument, match="holds out none"):
        held_out(images, 0.01)
    with pytest.raises(InvalidArgument, match="holds out none"):
        held_out(ImageSet.of(noise(2, 2, 2), [0, 1]), 0.5)


# -- published data -------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data does not lie beside the checkout")
def test_cifar_is_read_and_divided():
    images = read_images(SHARED / "cifar10_12k.npz", "test")
    assert len(images) == 2000
    assert images.array().shape == (2000, 32, 32, 3)
    train, held = held_out(images, 0.1, 0)
    assert (len(train), len(held)) == (1800, 200)
    sizes = np.bincount(images.labels, minlength=10)
    assert np.abs(np.bincount(held.labels, minlength=10) - sizes / 10).max() < 1
