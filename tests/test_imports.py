"""The import rules of the folders."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnlite

ROOT = Path(nnlite.__file__).parent
CORE = {
    "engine",
    "changes",
    "checks",
    "figures",
    "hints",
    "random",
    "tables",
    "modes",
    "parameter",
    "members",
    "layer",
    "init",
    "processes",
}

# The rooms that each room may import, at the top of a module or inside a function. The engine knows
# arrays and no layers; `losses`, `optim` and the data know no layers either.
ALLOWED = {
    "engine": {"engine"},
    "changes": set(),
    "checks": {"engine"},
    "figures": set(),
    "hints": set(),
    "tables": {"hints"},
    "random": {"engine"},
    "parameter": {"engine", "changes", "checks", "hints", "random", "tables"},
    "modes": set(),
    "processes": {"engine", "random"},
    "members": {"engine", "checks", "parameter"},
    "layer": {
        "engine",
        "hints",
        "changes",
        "checks",
        "random",
        "modes",
        "parameter",
        "members",
    },
    "init": {"parameter", "checks", "random"},
    "layers": CORE,
    "losses": CORE,
    "optim": CORE | {"optim"},
    "data": CORE | {"data", "datasets"},
    "datasets": CORE | {"datasets", "files"},
    "files": CORE | {"files"},
    "training": CORE | {"training", "files", "losses", "optim", "data"},
    "web": CORE | {"web", "files"},
    "debug": CORE | {"debug", "web", "training", "files", "losses", "optim", "data"},
}
# `plots`, `diagrams`, `compiled` and `interop` may import everything, and nobody imports them.

# The files of `layers` that other files of `layers` may import.
SHARED_LAYERS = {"containers", "elementwise", "graph", "window"}
# The files of `layers` whose layers are made of other layers, and import them.
COMPOSED_LAYERS = {"layers.attention", "layers.transformer"}

# The rooms that a function of a module imports when it is called.
IN_CALLS = {
    ("layer", "debug"),
    ("layer", "diagrams"),
    ("debug.trace", "diagrams"),
    ("training.fit", "compiled"),
    ("training.metrics", "interop"),
}

MODULES = sorted(
    (".".join(path.relative_to(ROOT).with_suffix("").parts), path)
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
)


def imports(path: Path, on_top: bool = False) -> list[tuple[str, str]]:
    """Return the module and the name of each import from within the package.

    With `on_top`, those in functions and for type checkers are left out.
    """
    tree = ast.parse(path.read_text("utf-8"))
    package = ["nnlite", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in tree.body if on_top else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            module = ".".join(filter(None, base[1:]))
            for alias in node.names:
                is_module = (ROOT / module.replace(".", "/") / f"{alias.name}.py").exists()
                is_package = (ROOT / module.replace(".", "/") / alias.name).is_dir()
                inner = f"{module}.{alias.name}" if module else alias.name
                found.append((inner if is_module or is_package else module, alias.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnlite"):
            found += [(node.module.removeprefix("nnlite").strip("."), a.name) for a in node.names]
    return found


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_a_module_imports_only_the_rooms_that_it_may(module: str, path: Path) -> None:
    room = module.partition(".")[0]
    wrong = set()
    for imported, name in imports(path):
        other, _, its_file = imported.partition(".")
        is_inside_its_room = other == room and room != "layers"
        if (module, other) in IN_CALLS or is_inside_its_room or room not in ALLOWED:
            continue
        is_sibling = room == other == "layers" and (
            module in COMPOSED_LAYERS or its_file.split(".")[0] in SHARED_LAYERS
        )
        if other not in ALLOWED[room] and not is_sibling:
            wrong.add((module, imported))
        is_private = name.startswith("_") and not name.startswith("__")
        if is_private and other != room:
            wrong.add((module, f"{imported}.{name}"))
    assert wrong == set()


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        module: {imported for imported, _ in imports(path, on_top=True)} for module, path in MODULES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " imports ".join((*trail, module))
        if module in graph and module not in done:
            for imported in graph[module]:
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


# `nnlite.datasets` and `nnlite.losses` are public, and so are the names in their __init__.
FOLDERS = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - {"datasets", "losses"})


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_init_of_a_folder_is_one_docstring(folder: str) -> None:
    tree = ast.parse((ROOT / folder / "__init__.py").read_text("utf-8"))
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)
