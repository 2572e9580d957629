"""Loading a task by name, from a function and from a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from task_cases import GOOD_FILE, make
from torch import nn

from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    TaskError,
    UnknownNameError,
)
from ravine.tasks import TASKS, Task, load_task


def test_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        load_task("digit-cnn", 0)
    text = str(caught.value)
    assert "did you mean 'digits-cnn'?" in text
    assert all(name in text for name in TASKS)


def test_a_name_whose_file_lies_here_is_told(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(GOOD_FILE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"write 'mine.py'"):
        load_task("mine", 0)
    assert isinstance(load_task("mine.py", 0), Task)


def test_task_function_and_task_are_taken():
    task = make()
    assert load_task(task, 0) is task
    assert load_task(lambda seed: task, 0) is task


@pytest.mark.parametrize(
    "source, error", [(nn.Linear(1, 1), TaskError), (3, TaskError), (None, TaskError)]
)
def test_what_is_no_task_is_refused(source, error):
    with pytest.raises(error, match="wrap model, loss and data"):
        load_task(source, 0)


def test_seed_is_checked():
    with pytest.raises(ArgumentError, match="out of range"):
        load_task("wine", -1)
    with pytest.raises(ArgumentTypeError, match="not an integer"):
        load_task("wine", True)


def test_a_function_that_forgets_the_seed_is_repeatable_and_leaves_the_caller_alone():
    before = torch.get_rng_state()

    def function(seed):
        return make(model=nn.Linear(2, 1))

    first, second, other = (load_task(function, seed).model.weight for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_file_imports_its_neighbour_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "neighbour_of_task.py").write_text("width = 2\n")
    file = tmp_path / "mine.py"
    file.write_text("import neighbour_of_task\n" + GOOD_FILE)
    path = list(sys.path)
    assert load_task(file, 0).train[0].shape == (8, 2)
    assert sys.path == path
    file.write_text(GOOD_FILE.replace("8, 2", "9, 2"))  # an edit at once is seen
    assert load_task(str(file), 0).train[0].shape == (9, 2)


BAD_FILES = {
    "syntax": ("x = 1\ndef task(seed:\n    pass\n", "not valid Python", ["line 2", "^"]),
    "no function": ("def tusk(seed):\n    pass\n", "no function 'task'", ["did you mean 'tusk'"]),
    "no callable": ("task = 3\n", "is not a function", ["int", "def task(seed)"]),
    "on loading": ("x = 1\ny = x / 0\n", "failed while it ran", ["line 2", "ZeroDivisionError"]),
    "exit": ("import sys\nsys.exit(2)\n", "failed while it ran", ["line 2", "SystemExit"]),
    "import": ("import no_such_thing\n", "failed while it ran", ["no_such_thing", "line 1"]),
    "within": (
        "def task(seed):\n    return {}['k']\n",
        "function failed",
        ["line 2, in task", "KeyError: 'k'", "return {}['k']"],
    ),
    "no return": ("def task(seed):\n    pass\n", "did not return a Task", ["is a return missing"]),
    "other": ("def task(seed):\n    return 3\n", "did not return a Task", ["int"]),
    "no seed": ("def task():\n    pass\n", "does not take a seed", ["task()"]),
    "bytes": ("x = '\0'\n", "not ", ["bad.py"]),
    "wrong task": (
        "import torch\nfrom ravine.tasks import Task\ndef task(seed):\n"
        "    return Task(model=3, loss='mse', train=None)\n",
        "function failed",
        ["line 4", "not a torch module"],
    ),
}


@pytest.mark.parametrize("source, what, details", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_tells_where_and_what_to_do(source, what, details, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text(source)
    with pytest.raises(TaskError) as caught:
        load_task("bad.py", 0)
    assert what in caught.value.what
    text = str(caught.value)
    assert "bad.py" in text
    assert "do:" in text
    assert str(tmp_path) not in text
    for detail in details:
        assert detail in text


def test_missing_file_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_task.py").write_text(GOOD_FILE)
    with pytest.raises(TaskError, match=r"did you mean 'my_task\.py'"):
        load_task("my_tsk.py", 0)
    with pytest.raises(TaskError, match="cannot be read"):
        load_task(tmp_path, 0)
