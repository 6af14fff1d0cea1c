"""Imports inside the package only go down, no two modules import each other, and heavy libraries stay in their rooms.

The rooms are listed from top to bottom. The syntax trees are read, nothing is imported, and every failure names the
file and the line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vsrife"

FLOORS = (  # from top to bottom; a module may import from its own room and from those below
    "cli",
    "doctor",
    "evaluation",
    "farm",
    "video",
    "images",
    "filters",
    "arrays",
    "engine",
    "checkpoints",
    "networks",
    "timing",
    "ops",
    "files",
    "errors",
)
OUTSIDE = ("", "__main__", "_version")  # the package itself holds names alone, and `__main__` starts the command

ROOMS_OF_LIBRARY = {
    "vapoursynth": ("filters", "video", "evaluation", "farm", "doctor"),
    "vsutil": ("filters", "video", "evaluation"),
    "av": ("video", "images", "farm"),
    "PIL": ("video", "images"),
    "tifffile": ("video", "images"),
    "ray": ("farm",),
    "click": ("cli",),
    "rich": ("cli",),
}
WITHOUT_TORCH = ("errors", "files", "timing", "networks.catalogue", "checkpoints.finding", "engine.keywords")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, or one name out of a module."""

    importer: str  # dotted, without the leading "vsrife."
    target: str  # dotted, whole
    path: Path
    line: int
    in_function: bool
    commented: bool  # a comment stands on the line, or above the block of imports that it is in
    for_types: bool  # under `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                first, last = child.lineno - 1, child.end_lineno or child.lineno
                while first and lines[first - 1].strip().startswith(("import ", "from ")):
                    first -= 1
                above = lines[first - 1].strip() if first else ""
                commented = above.startswith("#") or any("#" in line for line in lines[first:last])
                for target in targets(child):
                    yield Import(name, target, path, child.lineno, in_function, commented, for_types)
            else:
                yield from visit(
                    child,
                    in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
                    for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
                )

    yield from visit(ast.parse(text), in_function=False, for_types=False)


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Modules that a statement imports; a name that is not a module counts as its module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    inner = [f"{base}.{alias.name}" for alias in node.names]
    return sorted({full if full.removeprefix("vsrife.") in MODULES else base for full in inner})


IMPORTS = [found for name, path in sorted(MODULES.items()) for found in imports_of(name, path)]
INTERNAL = [
    (found, found.target.removeprefix("vsrife").removeprefix("."))
    for found in IMPORTS
    if found.target.split(".")[0] == "vsrife"
]


def room(module: str) -> str:
    return module.split(".")[0]


def report(problems: list[str]) -> str:
    return "\n" + "\n".join(problems)


def test_every_module_is_on_a_floor() -> None:
    assert {room(name) for name in MODULES} - set(OUTSIDE) == set(FLOORS)


def test_imports_go_down() -> None:
    floor = {name: len(FLOORS) - index for index, name in enumerate(FLOORS)} | dict.fromkeys(OUTSIDE, 0)
    problems = [
        f"{found}: {room(found.importer)} lies below {room(target)}"
        for found, target in INTERNAL
        if room(found.importer) not in OUTSIDE and floor[room(target)] > floor[room(found.importer)]
    ]
    assert not problems, report(problems)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name: {target for found, target in INTERNAL if found.importer == name and not found.for_types and target}
        for name in MODULES
        if name
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("circle: " + " -> ".join(error.args[1])) from None


def test_libraries_stay_in_their_rooms() -> None:
    problems = [
        f"{found}: that is for {', '.join(rooms)}"
        for found in IMPORTS
        if (rooms := ROOMS_OF_LIBRARY.get(found.target.split(".")[0])) and room(found.importer) not in rooms
    ]
    assert not problems, report(problems)


def test_what_needs_no_torch_imports_none() -> None:
    """Neither by itself nor through what it imports when it is loaded."""
    loaded = [found for found in IMPORTS if not found.in_function and not found.for_types]
    problems = []
    for start in (name for name in MODULES if any(name == one or name.startswith(f"{one}.") for one in WITHOUT_TORCH)):
        seen, waiting = {start}, [start]
        while waiting:
            for found in (found for found in loaded if found.importer == waiting[0]):
                inner = found.target.removeprefix("vsrife.")
                if found.target.split(".")[0] == "torch":
                    problems.append(f"{start}: {found}")
                elif inner in MODULES and inner not in seen:
                    seen.add(inner)
                    waiting.append(inner)
            waiting.pop(0)
    assert not problems, report(problems)


def test_imports_inside_functions_say_why() -> None:
    """Commands are exempt: they import what they need when they run, so that help and completion are quick."""
    hidden = [found for found in IMPORTS if found.in_function and room(found.importer) != "cli"]
    problems = [str(found) for found in hidden if not found.commented]
    assert not problems, report([f"{problem}, in a function, without a comment that says why" for problem in problems])
