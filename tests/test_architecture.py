"""Direction of imports between the rooms of the package, and equality of marked copies."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from textwrap import dedent

import pytest


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_umons"
# A room imports from the layers before its own only. `models` is copied to the Hub, so it imports no other room.
LAYERS = (
    ("models", "recipes", "utils"),
    ("registration", "tasks"),
    ("data",),
    ("inference",),
    ("evaluation", "serving"),
    ("export", "publishing"),
    ("training",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
COPY_MARK = re.compile(r"^\s*# Copied from (?P<original>\S+)(?: with (?P<replacements>.+))?$")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_path(parts: list[str]) -> Path | None:
    """Return the file of a dotted name in the package, `None` for a name that is no module."""
    path = ROOT.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_files(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield line and file of every import from the package: at top level, in functions and under `TYPE_CHECKING`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(ROOT).parent.parts
            base = list(folder[: len(folder) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for parts in names:
            if parts[0] == PACKAGE.name:
                yield node.lineno, module_path(parts) or module_path(parts[:-1])


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_layer():
    rooms = {room_of(path) for path in package_files()} - {"__init__"}
    assert rooms == LEVEL.keys()


def test_imports_point_to_lower_layers():
    wrong = []
    for path in package_files():
        room = room_of(path)
        for line, imported in imported_files(path):
            other = room_of(imported)
            if room == "__init__":
                is_allowed = other in ("models", "registration", "utils")
            elif other == "__init__":  # the public names, which are the models
                is_allowed = LEVEL[room] > LEVEL["registration"]
            else:
                is_allowed = room == other or LEVEL[room] > LEVEL[other]
            if not is_allowed:
                wrong.append(f"{relative(path)}:{line} imports {relative(imported)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["umons", "baselines"])
def test_model_folder_is_flat_and_self_contained(folder):
    """The Hub copies a file and its neighbours, which it finds by imports of the form `from .x import Y`."""
    wrong = []
    for path in sorted((PACKAGE / "models" / folder).rglob("*.py")):
        for line, imported in imported_files(path):
            if imported.parent != path.parent:
                wrong.append(f"{relative(path)}:{line} imports {relative(imported)}")
        for node in ast.walk(parse(path)):
            is_relative = isinstance(node, ast.ImportFrom) and node.level > 0
            if is_relative and (node.level > 1 or not node.module or "." in node.module):
                wrong.append(f"{relative(path)}:{node.lineno} is not of the form `from .x import Y`")
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circle():
    graph = {path: {imported for _, imported in imported_files(path)} - {path} for path in package_files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(relative(path) for path in error.args[1]))


def find_definition(body: list[ast.stmt], name: str) -> ast.stmt:
    """Return the class, function or assignment called `name`."""
    for node in body:
        names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        if name in (getattr(node, "name", None), *names):
            return node
    raise LookupError(f"{name} is not defined.")


def source_of(path: Path, node: ast.stmt) -> str:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return dedent("\n".join(path.read_text().splitlines()[first - 1 : node.end_lineno]))


def original_source(name: str) -> str:
    """Return the source of `modeling_umons.<module>.<name>` or `modeling_umons.<module>.<class>.<name>`."""
    parts = name.split(".")
    length = next(length for length in range(len(parts) - 1, 0, -1) if module_path(parts[:length]))
    path = module_path(parts[:length])
    node = parse(path)
    for part in parts[length:]:
        node = find_definition(node.body, part)
    return source_of(path, node)


def marked_copies(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line of the mark, source of the copy, and source of the original after the replacements."""
    definitions = {}
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Assign)):
            source = source_of(path, node)
            definitions[node.end_lineno - source.count("\n")] = source
    for line, text in enumerate(path.read_text().splitlines(), start=1):
        if mark := COPY_MARK.match(text):
            expected = original_source(mark["original"])
            for replacement in (mark["replacements"] or "").split(","):
                if replacement:
                    expected = expected.replace(*replacement.strip().split("->"))
            yield line, definitions[line + 1], expected


def test_marked_copies_equal_their_originals():
    wrong, count = [], 0
    for path in package_files():
        for line, copied, expected in marked_copies(path):
            count += 1
            if copied != expected:
                wrong.append(f"{relative(path)}:{line} is not a copy of:\n{expected}")
    assert not wrong, "\n\n".join(wrong)
    assert count, "No copy is marked with `# Copied from`."


@pytest.mark.parametrize("changed", [False, True])
def test_marked_copies_compare_body_and_replacements(tmp_path, changed):
    path = tmp_path / "copy.py"
    original = original_source("modeling_umons.models.umons.configuration_umons.UmonsConfig.length_limit")
    copied = original.replace("modality", "name").replace("max_", "max__" if changed else "max_")
    mark = "# Copied from modeling_umons.models.umons.configuration_umons.UmonsConfig.length_limit with modality->name"
    path.write_text(f"{mark}\n{copied}\n")
    [(line, found, expected)] = marked_copies(path)
    assert line == 1
    assert (found == expected) is not changed
