"""Documents: a digest of the content, and strict types of what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.data.arrays import read_arrays
from phonenas.data.documents import Count, Document, Ms, Share, parsed, strict
from phonenas.space.errors import StoreError, UnsupportedFormat

NOTE = Document("phonenas-note", 2, "note")
AGAIN = "Write it again."


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    content = {"a": [1, 2.5, None, "é"], "b": {"c": True}, "odd": float("nan")}
    NOTE.write(path, content)
    read = NOTE.read(path, AGAIN)
    assert read is not None
    assert [*read][:3] == ["format", "version", "digest"]
    # JSON has no NaN: what is not finite is null.
    assert {k: read[k] for k in content} == {**content, "odd": None}
    NOTE.write(path, read | {"a": 7})
    again = NOTE.read(path, AGAIN)
    assert again is not None and again["a"] == 7 and again["digest"] != read["digest"]
    assert NOTE.read(tmp_path / "none.json", AGAIN) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d | {"a": 2}, "its digest is another"),
        (lambda d: {k: v for k, v in d.items() if k != "digest"}, "its digest is another"),
        (lambda d: d | {"digest": None}, "its digest is another"),
        (lambda d: d | {"version": 3}, "has version 3; this phonenas reads versions 1 to 2"),
        (lambda d: d | {"version": 0}, "has version 0; this"),
        (lambda d: d | {"version": True}, "has version True; this"),
        (lambda d: d | {"version": "2"}, "has version 2; this"),
        (lambda d: d | {"format": "phonenas-other"}, "is not a note of phonenas"),
        (lambda d: [d], "is not a note of phonenas"),
    ],
)
def test_what_was_changed_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "n.json"
    NOTE.write(path, {"a": 1})
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UnsupportedFormat, match=words) as caught:
        NOTE.read(path, AGAIN)
    assert str(caught.value).endswith(AGAIN)


@pytest.mark.fault(
    "A file of phonenas was changed since it was written.",
    "`its digest is another`",
    "What the error says: the file is written again by its command.",
)
def test_a_document_before_digests_is_read_and_keeps_its_version(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text('{"format": "phonenas-note", "version": 1, "a": 1}')
    old = NOTE.read(path, AGAIN)
    assert old is not None and old["a"] == 1
    NOTE.write(path, old | {"b": 2})
    again = json.loads(path.read_text())
    assert (again["version"], again["b"], len(again["digest"])) == (1, 2, 16)
    path.write_text(json.dumps(again | {"b": 3}))
    with pytest.raises(UnsupportedFormat, match="its digest is another"):
        NOTE.read(path, AGAIN)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_strict_json_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        parsed(text)
    assert len(str(caught.value)) < 200
    path = tmp_path / "n.json"
    path.write_bytes(text)
    with pytest.raises(UnsupportedFormat, match="damaged, or not a note"):
        NOTE.read(path, AGAIN)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(StoreError, match="no regular file"):
        NOTE.read(tmp_path / "folder.json", AGAIN)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, Ms),
        ("3", Ms),
        (0, Ms),
        (-1.0, Ms),
        (1e308, Ms),
        (float("nan"), Ms),
        (float("inf"), Ms),
        (None, Ms),
        (10**400, Ms),
        (1.5, Count),
        (True, Count),
        (-1, Count),
        (2**70, Count),
        (1.01, Share),
    ],
)
def test_a_value_out_of_range_is_none(value: object, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"\[0\]: expected |out of range|too large"):
        strict({"a": [value]}, dict[str, list[kind]])
    assert strict(2, Ms) == 2.0


def test_arrays_are_what_their_headers_say(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    held = {
        "g": np.arange(6, dtype=np.int8).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "t": np.array("text"),
    }
    np.savez(path, **held)  # type: ignore[arg-type]
    read = read_arrays(path)
    assert sorted(read) == ["f", "g", "t"] and str(read["t"]) == "text"
    assert all(np.array_equal(read[name], held[name]) for name in held)
    content = path.read_bytes()
    huge = content.replace(b"'shape': (2, 3)", b"'shape': (9**9,)"[:15])
    for damaged in (b"", content[:100], content[:-30], huge, content.replace(b"|i1", b"|O1")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            read_arrays(path)
    np.savez_compressed(path, **held)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is compressed"):
        read_arrays(path)
    np.savez(path, o=np.array([{}], object), allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not hold"):
        read_arrays(path)
