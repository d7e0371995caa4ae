"""The layers of CONTRIBUTING.md: imports point down, nothing runs in a circle, deployment loads no torch."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer

ROOT = Path(gossamer.__file__).parent

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
ROW = re.compile(r"\| (\d+) \| ((?:`[\w/]+`(?:, )?)+) \| (torch|no torch) \|")
COUNTS = re.compile(r"(\d+) rooms in (\d+) layers with (\d+) imports between them")


def read_table(text: str) -> tuple[dict[str, int], set[str]]:
    """Room -> layer, and the rooms that load no torch, from the table of CONTRIBUTING.md."""
    layers: dict[str, int] = {}
    light: set[str] = set()
    for layer, rooms, torch in ROW.findall(text):
        for room in re.findall(r"[\w]+", rooms):
            assert room not in layers, f"{room} stands twice in the table"
            layers[room] = int(layer)
            if torch == "no torch":
                light.add(room)
    return layers, light


LAYERS, NO_TORCH = read_table(CONTRIBUTING.read_text(encoding="utf-8"))
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts)


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path, top_only: bool = False) -> set[str]:
    """The gossamer modules (without the root's name) and other packages that a file imports, not for types only."""
    imported: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                imported.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                imported.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(ast.parse(path.read_text()))
    return imported


@functools.cache
def edges() -> dict[str, set[str]]:
    """module -> the gossamer modules that it imports anywhere."""
    known = {module_of(path) for path in FILES}
    result: dict[str, set[str]] = {}
    for path in FILES:
        targets = set()
        for name in imports(path):
            if not name.startswith("gossamer"):
                continue
            inner = name.removeprefix("gossamer").removeprefix(".")
            candidates = [inner, f"{inner}.__init__", inner.rpartition(".")[0], f"{inner.rpartition('.')[0]}.__init__"]
            targets.update([next((c for c in candidates if c in known), "__init__")])
        result[module_of(path)] = targets
    return result


def test_the_table_names_every_room_and_no_other() -> None:
    assert {room_of(module_of(path)) for path in FILES} - {"__init__", "__main__"} == set(LAYERS)


def test_the_counts_of_contributing_are_those_of_the_code() -> None:
    line = COUNTS.search(CONTRIBUTING.read_text(encoding="utf-8"))
    assert line is not None
    arrows = {
        (room_of(module), room_of(target))
        for module, targets in edges().items()
        for target in targets
        if room_of(module) != room_of(target) and {room_of(module), room_of(target)} <= set(LAYERS)
    }
    assert tuple(map(int, line.groups())) == (len(LAYERS), len(set(LAYERS.values())), len(arrows))


@pytest.mark.parametrize(
    "module", [module_of(path) for path in FILES if room_of(module_of(path)) not in ("__init__", "__main__")]
)
def test_imports_point_down(module: str) -> None:
    for target in edges()[module]:
        if target == "__init__":
            continue
        same_room = room_of(target) == room_of(module)
        assert same_room or LAYERS[room_of(target)] < LAYERS[room_of(module)], (
            f"{module} imports {target}, which is above it"
        )


def test_no_import_runs_in_a_circle() -> None:
    graph = edges()
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, "circle: " + " -> ".join([*trail, module])
        if state.get(module) == 2:
            return
        state[module] = 1
        for target in sorted(graph.get(module, ())):
            if target not in (module, "__init__"):
                visit(target, (*trail, module))
        state[module] = 2

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", [path for path in FILES if room_of(module_of(path)) in NO_TORCH], ids=module_of)
def test_the_deployment_half_never_imports_torch_at_its_top(path: Path) -> None:
    assert not [name for name in imports(path, top_only=True) if name.split(".")[0] in ("torch", "torchvision", "timm")]


@pytest.mark.parametrize(
    "name",
    [
        "gossamer",
        "gossamer.runtime",
        "gossamer.images.preprocess",
        "gossamer.modelfile.metadata",
        "gossamer.cli.main",
        "gossamer.run",
    ],
)
def test_importing_the_deployment_half_loads_no_torch(name: str) -> None:
    code = f"import sys, {name}; print([m for m in ('torch', 'onnxruntime', 'openvino', 'matplotlib', 'rich') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_model_file_is_exported_without_torch() -> None:
    rooms = ", ".join(
        f"gossamer.export.{name}" for name in ("several", "litert", "ncnn", "openvino", "executorch", "c")
    )
    code = f"import sys, {rooms}; print('torch' in sys.modules)"  # it takes longer than the export
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_public_names_are_these() -> None:
    assert set(gossamer.__all__) == {
        "__version__",
        "GossamerError",
        "Preprocess",
        "Run",
        "Settings",
        "create_model",
        "decompose",
        "diagnose",
        "list_models",
        "load",
        "pick",
        "predict_many",
        "prune",
        "quantise",
        "quantize",
        "resume",
        "shrink",
        "sweep",
        "review",
        "train",
        "verify",
    }
    for name in gossamer.__all__:
        assert getattr(gossamer, name) is not None


@functools.cache
def names_of(path: Path) -> set[str]:
    """What a file defines or imports at its top."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = [
    path
    for folder in ("benchmarks", "studies", "examples", "engine", "tests")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_scripts_import_what_there_is(path: Path) -> None:
    """No test runs every benchmark: a name that moved would be missed until somebody measures."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in ("gossamer", "tests"):
            continue
        home = ROOT.parent if (node.module or "").startswith("gossamer") else REPOSITORY
        place = home.joinpath(*(node.module or "").split("."))
        for alias in node.names:
            if place.is_dir() and ((place / f"{alias.name}.py").is_file() or (place / alias.name).is_dir()):
                continue
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            assert file.is_file(), f"no {node.module}"
            known = names_of(file) | (set(gossamer.__all__) if node.module == "gossamer" else set())
            assert alias.name in known or "_HOMES" in known, f"{node.module} has no {alias.name}"
