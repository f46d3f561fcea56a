"""The imports of the package, drawn as text, and what the rules of the house say of them.

    python -m tools.house

Every import counts: at the top of a module, inside a function, under TYPE_CHECKING, and
`importlib.import_module` of a literal. tests/test_house.py asserts what is printed here.
"""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = {"space": 1, "data": 2, "devices": 3, "latency_model": 3, "search": 4, "phonenas": 5}
Graph = Mapping[str, frozenset[str]]


parsed = cache(ast.parse)  # each module is asked about several times


def dotted(node: ast.expr) -> str:
    """The source of an expression, as `ast.unparse`, which is slow, has it."""
    parts, stem = [], node
    while isinstance(stem, ast.Attribute):
        parts.append(stem.attr)
        stem = stem.value
    if isinstance(stem, ast.Name):
        return ".".join([stem.id, *reversed(parts)])
    return ast.unparse(node)


@cache
def tracked(pattern: str = "*.py") -> tuple[Path, ...]:
    """Files of the project, by git's list; those that are not added yet count too."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(p for line in sorted(listed.stdout.split("\n")) if (p := ROOT / line).is_file())


def package_files() -> list[Path]:
    """The modules that a wheel holds."""
    return [p for p in tracked() if p.relative_to(ROOT).parts[0] in FLOORS]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "phonenas" else ("phonenas", *parts)
    return ".".join(p for p in parts if p != "__init__")


def floor(module: str) -> int:
    """1 to 5; the root package and what stands beside it are on the fifth."""
    part = [*module.split("."), "phonenas"][1]
    return FLOORS.get(part, FLOORS["phonenas"])


def imported(source: str, module: str, is_package: bool, known: Iterable[str]) -> frozenset[str]:
    """Modules of `known` that a module's source imports.

    `from a import b` is an import of `a.b` where that is a module, else of `a`.
    """
    known, found = set(known), set()
    package = module.split(".") if is_package else module.split(".")[:-1]

    def absolute(name: str, level: int) -> str:
        base = package[: len(package) - level + 1] if level else []
        return ".".join([*base, *([name] if name else [])])

    def add(stem: str, names: Iterable[str] = ("",)) -> None:
        for name in names:
            whole = f"{stem}.{name}"
            found.add(whole if name and whole in known else stem)

    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ImportFrom):
            add(absolute(node.module or "", node.level), [a.name for a in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                name = first.value.lstrip(".")
                add(absolute(name, len(first.value) - len(name)))
    return frozenset(found & known - {module})


@cache
def import_graph() -> Graph:
    """By module, the modules of the package that it imports."""
    files = {module_name(p): p for p in package_files()}
    return {
        name: imported(p.read_text(encoding="utf-8"), name, p.name == "__init__.py", files)
        for name, p in files.items()
    }


def components(graph: Graph) -> list[list[str]]:
    """Strongly connected components, importers after what they import (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            done.append(stack[at:])
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return done


def circles(graph: Graph) -> list[list[str]]:
    """Modules that import each other, directly or through others."""
    return [sorted(c) for c in components(graph) if len(c) > 1 or c[0] in graph[c[0]]]


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Imports from a floor above, or from the other folder of the same floor."""
    return [
        (name, other)
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if floor(other) > floor(name)
        or (floor(other) == floor(name) == 3 and name.split(".")[1] != other.split(".")[1])
    ]


def rooms(graph: Graph) -> dict[str, frozenset[str]]:
    """The same between rooms: a room is a folder, named as its package."""
    packages = {module_name(p) for p in package_files() if p.name == "__init__.py"}

    def room(module: str) -> str:
        return module if module in packages else module.rpartition(".")[0]

    joined: dict[str, set[str]] = {room(name): set() for name in graph}
    for name, others in graph.items():
        joined[room(name)] |= {room(o) for o in others} - {room(name)}
    return {name: frozenset(others) for name, others in joined.items()}


def longest_chain(graph: Graph, start: str, end: str) -> list[list[str]]:
    """The longest way from `start` to `end`; nodes that import each other count as one step."""
    place = {name: tuple(c) for c in components(graph) for name in c}
    best: dict[tuple[str, ...], list[list[str]]] = {}
    for component in components(graph):  # what it imports comes before it
        key = tuple(component)
        ways = [[sorted(key)]] if end in key else []
        others = {place[o] for name in key for o in graph[name]} - {key}
        ways += [[sorted(key), *best[o]] for o in others if best[o]]
        best[key] = max(ways, key=len, default=[])
    return best[place[start]]


@dataclass(frozen=True)
class Wide:
    """A function with more parameters than eight, `self` and `cls` aside."""

    place: str
    name: str
    parameters: int


def wide_functions(most: int = 8) -> list[Wide]:
    """Functions and methods of the package with more parameters than `most`."""
    wide = []
    for path in package_files():
        tree = parsed(path.read_text(encoding="utf-8"))
        methods = {
            f: {ast.unparse(d) for d in f.decorator_list}
            for c in ast.walk(tree)
            if isinstance(c, ast.ClassDef)
            for f in c.body
            if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                count = len([*a.posonlyargs, *a.args, *a.kwonlyargs])
                count += (a.vararg is not None) + (a.kwarg is not None)
                count -= node in methods and "staticmethod" not in methods[node]
                if count > most:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    wide.append(Wide(where, f"{module_name(path)}.{node.name}", count))
    return wide


def commands() -> set[str]:
    """Functions that are commands of the command line; an option is a parameter there."""
    import inspect

    from phonenas import cli

    apps, found = [cli.app], set()
    while apps:
        app = apps.pop()
        apps += [g.typer_instance for g in app.registered_groups if g.typer_instance is not None]
        callbacks = [c.callback for c in app.registered_commands]
        if app.registered_callback is not None:
            callbacks.append(app.registered_callback.callback)
        for callback in callbacks:
            if callback is not None:
                function = inspect.unwrap(callback)
                found.add(f"{function.__module__}.{function.__name__}")
    return found


def long_lines(most: int = 100) -> list[str]:
    """Lines of more characters than `most`, in every Python file."""
    return [
        f"{path.relative_to(ROOT)}:{n}"
        for path in tracked()
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > most
    ]


def skipped_formatting() -> list[str]:
    """Lines that the formatter is told to leave."""
    mark = "# fmt" + ": skip"
    return [
        f"{path.relative_to(ROOT)}:{n}"
        for path in tracked()
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if mark in line
    ]


def folder_sizes() -> Counter[str]:
    """Modules by folder of the package, `__init__` among them."""
    return Counter(str(p.parent.relative_to(ROOT)) for p in package_files())


_PICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_WATCHED = ("weights_only", "shell", "allow_pickle")
_NEVER = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput"} | {
    "subprocess.getstatusoutput",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
}


def unsafe(source: str) -> list[str]:
    """What in a module's source unpickles, evaluates text or reaches a shell, line by line."""
    seen: list[tuple[int, str]] = []
    tree, names = parsed(source), {}
    for node in ast.walk(tree):  # what each name stands for
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        stems: list[str] = []
        if isinstance(node, ast.Import):
            stems = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            stems = [node.module or ""]
        elif isinstance(node, ast.Call):
            head, _, rest = dotted(node.func).partition(".")
            called = names.get(head, head) + ("." + rest if rest else "")
            first = node.args[0] if node.args else None
            text = first.value if isinstance(first, ast.Constant) else None
            given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in _WATCHED}
            if called in ("__import__", "importlib.import_module") and isinstance(text, str):
                stems = [text]
            if called in _NEVER or called.split(".")[-1] in ("read_pickle", "to_pickle"):
                seen.append((node.lineno, called))
            if called == "torch.load" and given.get("weights_only") != "True":
                seen.append((node.lineno, "torch.load without weights_only=True"))
            for name in _WATCHED[1:]:
                if given.get(name, "False") != "False":
                    seen.append((node.lineno, f"{name}={given[name]}"))
        seen += [(node.lineno, stem) for stem in stems if stem.split(".")[0] in _PICKLERS]
    return [f"{line}: {what}" for line, what in sorted(seen)]


def main() -> None:
    graph = import_graph()
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in package_files()}
    print(f"{len(graph)} modules, {sum(lines.values()):,} lines")
    for folder, n in sorted(folder_sizes().items()):
        size = sum(v for p, v in lines.items() if str(p.parent.relative_to(ROOT)) == folder)
        print(f"  {folder:32} {n:3} modules {size:6,} lines")
    print("circles:", *[" <-> ".join(c) for c in circles(graph)] or ["none"], sep="\n  ")
    print("upwards:", *[f"{a} -> {b}" for a, b in upward(graph)] or ["none"], sep="\n  ")
    between = rooms(graph)
    chain = longest_chain(between, "phonenas", "phonenas.space")
    print(f"longest chain of rooms from __main__ to space, {len(chain)} steps:")
    print(*[", ".join(step) for step in chain], sep="\n  ")
    listed = commands()
    wide = [w for w in wide_functions() if w.name not in listed]
    print("more than eight parameters, commands aside:")
    print(*[f"{w.place} {w.name.split('.')[-1]}: {w.parameters}" for w in wide], sep="\n  ")
    print("lines over 100:", *long_lines(), sep="\n  ")
    print("formatting skipped:", *skipped_formatting(), sep="\n  ")
    print("over 450 lines:", *[f"{p.relative_to(ROOT)} {n}" for p, n in lines.items() if n > 450])
    print("rooms and what they import:")
    for name, others in sorted(between.items()):
        print(f"  {name}: {', '.join(sorted(others)) or '-'}")


if __name__ == "__main__":
    main()
