"""Arrays in .npz files: read as they were written, refused where the file says another thing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from phonenas.data.arrays import arrays_digest, read_arrays


def npy(descr: str, shape: str, content: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """A file of NumPy's format by hand."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    size = 10 if version == (1, 0) else 12
    header += " " * (63 - (size + len(header)) % 64) + "\n"
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + header.encode() + content


def held(path: Path, *files: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def test_what_numpy_wrote_is_read(tmp_path: Path) -> None:
    arrays = {
        "numbers": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "text": np.array(["a", "bcd"]),
        "flags": np.array([True, False]),
        "none": np.empty((0, 4)),
        "one": np.array(7),
    }
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    found = read_arrays(tmp_path / "x.npz")
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tolist() == array.tolist()
    assert arrays_digest(found) == arrays_digest(arrays)
    found["numbers"][0, 0] = 9.0  # they can be written to
    assert arrays_digest(found) != arrays_digest(arrays)


def test_a_digest_is_of_names_types_and_shapes_too() -> None:
    one = np.arange(4, dtype=np.int32)
    others = [{"b": one}, {"a": one.astype(np.int64)}, {"a": one.reshape(2, 2)}, {"a": one[::-1]}]
    assert len({arrays_digest(a) for a in [{"a": one}, *others]}) == 5
    assert len(arrays_digest({"a": one})) == 16


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (npy("'<f8'", "(2,)", EIGHT), r"8 bytes do not hold \(2,\) of float64"),
        (npy("'<f8'", "(1,)", EIGHT + b"x"), "9 bytes do not hold"),
        (npy("'|O'", "(1,)", EIGHT), "8 bytes do not hold"),
        (npy("'<c16'", "(1,)", 2 * EIGHT), "16 bytes do not hold"),
        (npy("'<f8'", "(1,)", EIGHT, (2, 0)), r"version \(2, 0\)"),
        (npy("'nonsense'", "(1,)", EIGHT), "descr is not a valid dtype"),
        (npy("'<f8'", "('a',)", EIGHT), "shape is not valid"),
        (npy("'<f8'", "(1,", EIGHT), "EOF in multi-line statement"),
        (b"\x93NUMPY", "magic"),
        (b"text", "magic"),
    ],
)
def test_a_header_that_says_another_thing_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        read_arrays(held(tmp_path / "x.npz", ("x.npy", content)))


def test_texts_of_no_letters_are_read(tmp_path: Path) -> None:
    path = held(tmp_path / "x.npz", ("x.npy", npy("'<U0'", "(2,)", b"")))
    assert read_arrays(path)["x"].tolist() == ["", ""]


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros(1000))
    with pytest.raises(ValueError, match="x.npy is compressed"):
        read_arrays(path)
    one = ("x.npy", npy("'<f8'", "(1,)", EIGHT))
    with pytest.warns(UserWarning, match="Duplicate"):
        held(path, one, one)
    with pytest.raises(ValueError, match="2 arrays, or one twice"):
        read_arrays(path)
    held(path, *((f"{n}.npy", one[1]) for n in range(201)))
    with pytest.raises(ValueError, match="201 arrays, or one twice"):
        read_arrays(path)
    assert len(read_arrays(held(path, *((f"{n}.npy", one[1]) for n in range(200))))) == 200
    path.write_bytes(b"PK")
    with pytest.raises(ValueError):
        read_arrays(path)
    whole = io.BytesIO()
    np.savez(whole, x=np.arange(100.0))
    path.write_bytes(whole.getvalue().replace(np.arange(100.0).tobytes(), bytes(800)))
    with pytest.raises(ValueError, match="CRC"):
        read_arrays(path)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")
