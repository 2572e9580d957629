"""Which files' contents a kernel's name depends on."""

from __future__ import annotations

import re

import pytest

from ravine.engine import kernel_cache
from ravine.engine.sources import ROOT, digest, imported

FILES = {
    "engine/__init__.py": '"""The engine."""\n',
    "engine/words.py": "import numpy\nfrom ravine.engine.deep import (\n    f,\n    g,\n)\n",
    "engine/deep.py": "def f():\n    from ravine.engine import deeper\n",
    "engine/deeper.py": "import ravine.engine.words\n",
    "engine/apart.py": "from ravine.engine.words import f\n",
    "losses/pair.py": "from ravine.engine import LIMIT\n",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "counted"),
    [
        ("ravine.engine.words", {"engine/words.py", "engine/deep.py", "engine/deeper.py"}),
        ("ravine.losses.pair", {"losses/pair.py", "engine/__init__.py"}),
    ],
    ids=("module", "package"),
)
def test_an_edit_counts_where_it_is_imported_however_far_away(tree, module, counted):
    before = digest(module, tree)
    for name, text in FILES.items():
        (tree / name).write_text(text + "# edited\n")
        assert (digest(module, tree) != before) == (name in counted), name
        (tree / name).write_text(text)
    assert digest(module, tree) == before


def test_every_way_to_import_is_seen():
    text = (
        "import ravine.a.b, ravine.c as c\nfrom ravine.d import e as f, g  # why\nfrom x import y"
    )
    wanted = {"ravine.a.b", "ravine.c", "ravine.d", "ravine.d.e", "ravine.d.g"}
    assert wanted <= imported(text)
    assert all(name.startswith("ravine") for name in imported(text))


def test_the_files_of_the_own_compiler_count():
    """As imported by Python, which is an oracle that reads no text."""
    text = (ROOT / "engine" / "cpu_compiler.py").read_text()
    assert {"ravine.engine.cpu_expressions", "ravine.engine.words"} <= imported(text)
    assert re.fullmatch("[0-9a-f]{20}", kernel_cache._support("ravine.engine.cpu_compiler"))
