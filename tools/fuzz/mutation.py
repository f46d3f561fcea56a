"""Mutations: what damages a file, or is put into it by somebody who does not know its form."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["of_arrays", "of_bytes", "of_database", "of_json", "of_toml", "of_tree", "value"]

_DEEP = 3_000  # lists within lists


def _deep(rng: random.Random) -> Any:
    return _Raw("[" * _DEEP + "]" * _DEEP if rng.random() < 0.5 else '{"a":' * _DEEP)


class _Raw(str):
    """Text that stands in a JSON file as it is."""


_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**399,
    0.0,
    -0.0,
    1e-320,
    1e308,
    -1e308,
    1.7976931348623157e308,
    0.1 + 0.2,
    float("nan"),
    float("inf"),
    float("-inf"),
    _Raw("1e400"),
    _Raw("9" * 5_000),
    _Raw("0x10"),
    _Raw("\\ud800"),
    "",
    "0",
    "12",
    "1e3",
    "nan",
    "٣",
    "NaN",
    "text",
    "a\nb\x1b[31m",
    "\ud800",
    "é\u202e",
    "../../etc",
    "=1+1",
    "x" * 5_000,
    [],
    [[]],
    [1],
    {},
    {"a": 1},
    [None] * 300,
)


def value(rng: random.Random) -> Any:
    """A value of any kind, mostly one that does not fit."""
    return _deep(rng) if rng.random() < 0.03 else rng.choice(_ODD)


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits turned, bytes cut, doubled, overwritten or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if data else 0
        size = rng.choice((1, 1, 2, 4, 8, 64, 512))
        way = rng.randrange(9)
        if way == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and data:
            data[at] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        elif way == 2:
            del data[at:]
        elif way == 3:
            del data[at : at + size]
        elif way == 4:
            data[at:at] = data[at : at + size]
        elif way == 5:
            data[at : at + size] = bytes(len(data[at : at + size]))
        elif way == 6:
            data[at:at] = rng.choice((b"\xff\xfe", b"\xc3", b"\x00", b"\n", b'"', b"]", b"{"))
        elif way == 7:
            data += rng.randbytes(size)
        elif way == 8:
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
    return bytes(data) if rng.random() > 0.005 else b""


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(tree, dict):
        found += [p for k, v in tree.items() for p in _paths(v, (*path, k))]
    elif isinstance(tree, list):
        # Of a long list its ends stand for it.
        places = range(len(tree)) if len(tree) <= 6 else (0, 1, len(tree) // 2, len(tree) - 1)
        found += [p for i in places for p in _paths(tree[i], (*path, i))]
    return found


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def of_tree(tree: Any, rng: random.Random) -> Any:
    """A JSON value with one place changed; the given one may be changed too."""
    path = rng.choice(_paths(tree))
    if not path:
        return value(rng) if rng.random() < 0.2 else tree
    parent, key = _at(tree, path[:-1]), path[-1]
    present, way = parent[key], rng.randrange(8)
    if way <= 2:
        parent[key] = value(rng)
    elif way == 3:
        del parent[key]
    elif way == 4 and isinstance(present, int | float) and not isinstance(present, bool):
        factor = rng.choice((1.01, 0.9, 10, -1, 1e6))
        parent[key] = type(present)(min(max(present * factor, -1e300), 1e300))
    elif way == 5:
        other = rng.choice(_paths(tree))
        if other:
            parent[key] = json.loads(json.dumps(_at(tree, other), default=str))
    elif way == 6 and isinstance(parent, dict):
        twin = rng.choice(("", " ", "X", "\n"))
        parent[f"{key}{twin}" if twin else rng.choice([*parent, "X"])] = parent.pop(key)
    elif way == 6:
        parent.append(present)
    elif isinstance(parent, dict):
        parent[f"\0twice:{key}"] = value(rng)
    else:
        rng.shuffle(parent)
    return tree


def _text(tree: Any) -> str:
    raws: list[str] = []

    def plain(v: Any) -> Any:
        if isinstance(v, _Raw):
            raws.append(str(v))
            return f"\0raw:{len(raws) - 1}"
        if isinstance(v, dict):
            return {k: plain(x) for k, x in v.items()}
        return [plain(x) for x in v] if isinstance(v, list) else v

    text = json.dumps(plain(tree)).replace('"\\u0000twice:', '"')
    for number, raw in enumerate(raws):
        text = text.replace(f'"\\u0000raw:{number}"', raw)
    return text


def of_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file with bytes or values changed."""
    if rng.random() < 0.25:
        return of_bytes(content, rng)
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = of_tree(tree, rng)
        if not isinstance(tree, dict | list):
            break
    return _text(tree).encode("utf-8", "surrogatepass")


def of_toml(content: bytes, rng: random.Random) -> bytes:
    """Settings with bytes, values, keys or whole lines changed."""
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    lines = content.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        way = rng.randrange(5)
        if way <= 1 and equals:
            new = value(rng)
            lines[at] = f"{key}= {new if isinstance(new, _Raw) else json.dumps(new, default=str)}"
        elif way == 2:
            lines[at] = lines[at].replace(key, rng.choice(("", "x", "name", "a.b", '"../x"')), 1)
        elif way == 3:
            lines.insert(at, rng.choice(lines))
        else:
            del lines[at]
            lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def of_arrays(content: bytes, rng: random.Random) -> bytes:
    """An .npz file with bytes, numbers, types, shapes or whole arrays changed."""
    if rng.random() < 0.25:
        return of_bytes(content, rng)
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    name = rng.choice([*arrays, "plain"])
    array = arrays[name]
    if name == "plain" and rng.random() < 0.9:
        arrays[name] = np.array(_text(of_tree(json.loads(str(array)), rng)))
    else:
        way = rng.randrange(7)
        if way == 0:
            del arrays[name]
        elif way == 1 and array.dtype.kind != "U":
            arrays[name] = array.astype(rng.choice(("f4", "f8", "i8", "U8", "O", "b", "c16")))
        elif way == 2 and array.size and array.dtype.kind != "U":
            flat = array.reshape(-1).copy()
            new = rng.choice((np.nan, np.inf, -1, 0, 1, 1e308, 7))
            with np.errstate(all="ignore"):
                flat[rng.randrange(len(flat))] = np.array(new).astype(array.dtype)
            arrays[name] = flat.reshape(array.shape)
        elif way == 3:
            arrays[name] = array.reshape(-1)
        elif way == 4:
            arrays[name] = array[: len(array) // 2] if array.ndim else np.array(3)
        elif way == 5:
            arrays[f"state_{name}"] = array
        elif array.ndim:
            arrays[name] = array[::-1]
    buffer = io.BytesIO()
    save: Callable[..., None] = np.savez if rng.random() < 0.9 else np.savez_compressed
    save(buffer, **arrays)
    return buffer.getvalue()


def of_database(path: Path, rng: random.Random) -> None:
    """An SQLite file, changed in place: bytes, or values, rows and columns of its tables."""
    if rng.random() < 0.2:
        path.write_bytes(of_bytes(path.read_bytes(), rng))
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA foreign_keys = OFF")
        names = [r[0] for r in base.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            table = rng.choice(names)
            try:
                _change_row(base, table, rng)
            except (sqlite3.Error, OverflowError, UnicodeEncodeError, ValueError, RecursionError):
                continue  # a constraint of the file forbids it, or an earlier change stands there


def _change_row(base: sqlite3.Connection, table: str, rng: random.Random) -> None:
    columns = [r[1] for r in base.execute(f"PRAGMA table_info({table})")]
    ids = [r[0] for r in base.execute(f"SELECT rowid FROM {table}")]
    if not ids:
        return
    row, column, way = rng.choice(ids), rng.choice(columns), rng.randrange(10)
    present = base.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()[0]
    new: Any
    if way == 0:
        base.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
        return
    if way == 1 and rng.random() < 0.3:
        base.execute(f"DROP TABLE {table}" if rng.random() < 0.5 else f"DELETE FROM {table}")
        return
    if way <= 5 and isinstance(present, str) and present[:1] in ("[", "{"):
        new = _text(of_tree(json.loads(present), rng))
    else:
        new = value(rng)
        if isinstance(new, list | dict):
            new = rng.choice((json.dumps(new), b"\xff\x00"))
        elif isinstance(new, _Raw):
            new = str(new)
    base.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
