"""A package imports lower floors and itself only: walks every import statement of the package."""

import ast
import sys
from pathlib import Path

import pytest

import showtell

ROOT = Path(showtell.__file__).parent

# Every module and sub-package of showtell. `__init__` and `__main__` are doors: anything may be behind them.
FLOORS = {
    "errors": 0,
    "files": 0,
    "confidence": 0,
    "languages": 0,
    "images": 1,
    "tokenizer": 1,
    "search": 1,
    "metrics": 1,
    "data": 2,
    "model_hub": 2,
    "models": 2,
    "exported_weights": 2,
    "bundle": 3,
    "averaging": 4,
    "engines": 4,
    "export": 5,
    "captioner": 5,
    "results": 6,
    "pages": 6,
    "training": 7,
    "serve": 7,
    "bulk": 7,
    "cli": 8,
}
DOORS = {"__init__", "__main__"}
LEARNING = {"torch", "torchvision", "transformers", "accelerate", "timm"}
MAY_LEARN = {"models", "engines", "training", "export"}  # at their top level; the others inside a function

# The steps sideways: what reads a file says what is wrong with it; an example of a data set reads its own photo.
SIDEWAYS = {("files", "errors"), ("data", "images")}


def package_of(file: Path) -> str:
    """The name in `FLOORS` that a file belongs to: bundle.py -> bundle, search/beam.py -> search."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def absolute_imports(file: Path, *, top_level: bool = False, root: Path = ROOT) -> list[str]:
    """Dotted names that a file imports, relative ones resolved; `from a import b` is a.b: b may be a module.

    With `top_level`, only those that run on import: not in a function, not under TYPE_CHECKING.
    """
    names = []
    package = ("showtell", *file.relative_to(root).parts[:-1])
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names += [f"{module}.{alias.name}" for alias in node.names]
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if top_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
    return names


FILES = sorted(file for file in ROOT.rglob("*.py") if package_of(file) not in DOORS)
IDS = [str(file.relative_to(ROOT)) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_module_stands_on_a_floor(file):
    assert package_of(file) in FLOORS, (
        f"{file.relative_to(ROOT)} is new: give '{package_of(file)}' a floor, in FLOORS and in the design"
    )


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_imports_go_down(file):
    """Also the imports inside functions: a lazy import of a higher floor is still a circle."""
    package = package_of(file)
    if package not in FLOORS:
        pytest.skip("has no floor yet: see test_module_stands_on_a_floor")
    for name in absolute_imports(file):
        first, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if first != "showtell" or target in (package, "__version__", ""):
            continue
        assert target in FLOORS, f"{file.relative_to(ROOT)} imports {name}, which has no floor"
        assert FLOORS[target] < FLOORS[package] or (package, target) in SIDEWAYS, (
            f"{file.relative_to(ROOT)} (floor {FLOORS[package]}) imports {name} (floor {FLOORS[target]})"
        )


CORE = [file for file in FILES if package_of(file) not in MAY_LEARN]


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(file):
    """The core never loads PyTorch on import: `showtell caption` must start in a second without it."""
    heavy = {name.split(".")[0] for name in absolute_imports(file, top_level=True)} & LEARNING
    assert not heavy, f"{file.relative_to(ROOT)} imports {sorted(heavy)} when it is imported"


COMMANDS = sorted((ROOT / "cli" / "commands").glob("*.py"))


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.name)
def test_a_command_imports_no_command(file):
    """What several commands need stands beside them, in cli/, or below."""
    for name in absolute_imports(file):
        assert not name.startswith("showtell.cli.commands"), f"cli/commands/{file.name} imports {name}"


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file) == "search"], ids=lambda file: file.name)
def test_search_needs_numpy_only(file):
    for name in absolute_imports(file):
        first = name.split(".")[0]
        assert first in {"showtell", "numpy", *sys.stdlib_module_names}, f"search/{file.name} imports {name}"


def test_relative_imports_are_resolved(tmp_path):
    """Guards the walk itself: `from .. import cli` in data/x.py must count as an import of showtell.cli."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "x.py"
    file.write_text("from .. import cli\nfrom .coco import read\ndef f():\n    import torch\n")
    names = absolute_imports(file, root=tmp_path)
    assert sorted(names) == ["showtell.cli", "showtell.data.coco.read", "torch"]
    assert "torch" not in absolute_imports(file, top_level=True, root=tmp_path)
