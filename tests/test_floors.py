"""Every file imports from its own folder or from lower floors only, and importing ravine is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ravine"

FLOORS = [
    {"errors"},
    {"expression"},
    {"engine"},
    {"rules", "losses", "schedules", "regularize", "data"},
    {"optim"},
    {"tasks"},
    {"watch"},
    {"training"},
    {"diagnose", "compare", "landscape", "bench"},
    {"report"},
    {"cli"},
]
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
# Narrower than its floor: report draws plain JSON, which training's records call it for.
ONLY = {"report": {"errors"}, "expression": {"errors"}, "errors": set()}
# Upward on purpose, inside a function: a record draws itself.
ALLOWED = {("training", "report"), ("diagnose", "report")}

HEAVY = ("triton", "plotly", "typer", "rich", "pandas", "sklearn", "scipy", "llvmlite")


def floor_of(path: Path) -> str:
    """The folder or file directly under ``ravine`` that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    """Each thing of ravine that a file imports, wherever in the file, with its line."""
    found = []
    package = ["ravine", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{a.name}" for a in node.names] if module == "ravine" else [module]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        found += [
            (node.lineno, name.split(".")[1])
            for name in names
            if name.startswith("ravine.") and name.split(".")[1] in HEIGHT
        ]
        found += [(node.lineno, "") for name in names if name == "ravine"]
    return found


def complaints(path: Path) -> list[str]:
    mine = floor_of(path)
    wrong = []
    for line, other in imports(path):
        if other == mine or (mine, other) in ALLOWED:
            continue
        if other == "":
            good = mine == "cli"
        elif mine in ONLY:
            good = other in ONLY[mine]
        else:
            good = HEIGHT[other] < HEIGHT[mine]
        if not good:
            wrong.append(f"{path.relative_to(SOURCE)}:{line} ({mine}) imports {other or 'ravine'}")
    return wrong


FILES = sorted(p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.stem in HEIGHT)


def test_every_folder_has_a_floor():
    names = {floor_of(p) for p in SOURCE.rglob("*.py")} - {"__init__", "__main__", "py"}
    assert names <= HEIGHT.keys()
    assert len(FILES) > 30


@pytest.mark.parametrize("floor", sorted({floor_of(p) for p in FILES}))
def test_imports_go_downwards(floor):
    wrong = [text for path in FILES if floor_of(path) == floor for text in complaints(path)]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_what_is_wrong(tmp_path, monkeypatch):
    """Imports inside functions, of modules, relative and by name."""
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    folder = tmp_path / "engine"
    folder.mkdir()
    path = folder / "bad.py"
    path.write_text(
        "from ravine.errors import x\nimport ravine.optim.make\n"
        "def f():\n    from ravine import losses\n    from ..rules import adam\n"
        "    from . import cpu\n    import importlib\n    importlib.import_module('ravine.cli')\n"
        "    import ravine\n"
    )
    assert sorted(complaints(path)) == [
        "engine/bad.py:2 (engine) imports optim",
        "engine/bad.py:4 (engine) imports losses",
        "engine/bad.py:5 (engine) imports rules",
        "engine/bad.py:8 (engine) imports cli",
        "engine/bad.py:9 (engine) imports ravine",
    ]


def test_what_builds_optimizers_loads_nothing_heavy():
    # PyTorch itself may load some of these: count only what comes on top.
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import ravine.optim, ravine.schedules; ravine.optim.Adam; ravine.update_rule\n"
        f"print([n for n in {HEAVY} if n in sys.modules and n not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_ravine_alone_loads_none_of_them():
    code = f"import sys, ravine; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_with_checkpoints_does_not_load_the_compiler_of_torch():
    # 140 MB and two seconds, where nothing is compiled by it.
    code = (
        "import sys, tempfile, ravine\n"
        "folder = tempfile.mkdtemp() + '/run'\n"
        "ravine.train('wine', epochs=1, run_dir=folder, checkpoint_every=1)\n"
        "ravine.train('wine', resume=folder, epochs=2)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "False"
