"""A configuration from a stranger runs no code and leads nowhere else."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ravine.cli import build_app
from ravine.errors import ConfigError, RavineError
from ravine.training.config import configure, read_config, resolve, to_text

TASK = """
import pathlib, torch, ravine
pathlib.Path(__file__).with_name("ran").touch()
def task(seed):
    X = torch.ones(4, 1)
    return ravine.Task(model=torch.nn.Linear(1, 1), loss="mse", train=(X, X))
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "theirs" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")


def write(text: str) -> Path:
    path = Path("theirs/run.toml")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../out", "it has .. in it"),
        ("runs/../../out", "it has .. in it"),
        ("runs\\\\..\\\\..\\\\out", "it has .. in it"),
        ("/tmp/out", "it is absolute"),
        ("C:/out", "it is absolute"),
        ("C:out", "it is absolute"),
        ("\\\\\\\\server\\\\out", "it is absolute"),
        ("~/out", "it begins with ~"),
        ("", "it is empty"),
        ("a\\u0000b", "characters that cannot be printed"),
        ("link/out", "it leads out by a symbolic link"),
    ],
)
@pytest.mark.parametrize("key", ["run_dir", "resume"])
def test_a_path_that_leads_elsewhere_is_refused(key: str, path: str, reason: str) -> None:
    if "link" in path:
        if sys.platform == "win32":
            pytest.skip("links need rights there")
        Path("link").symlink_to("..")
    with pytest.raises(ConfigError) as caught:
        read_config(write(f'task = "wine"\n{key} = "{path}"'))
    assert reason in str(caught.value)
    assert f"{key} in {Path('theirs/run.toml')}" in str(caught.value)
    assert f"give it on the command line: --{key.replace('_', '-')}" in str(caught.value)


def test_a_path_below_the_folder_is_taken() -> None:
    assert read_config(write('run_dir = "runs/try"')) == {"run_dir": "runs/try"}


def test_the_users_own_word_may_lead_anywhere() -> None:
    given = {"task": "wine", "run_dir": "/elsewhere"}
    text = to_text(resolve(configure(write('run_dir = "runs/try"'), given)))
    assert '# run_dir = "/elsewhere"  # not for a file: it is absolute' in text
    assert not Path("/elsewhere").exists()


@pytest.mark.parametrize(
    "task", ["../task.py", "below/../../task.py", "{absolute}", "link/task.py"]
)
def test_a_task_from_elsewhere_is_not_run(task: str) -> None:
    Path("task.py").write_text(TASK, encoding="utf-8")
    if "link" in task:
        if sys.platform == "win32":
            pytest.skip("links need rights there")
        Path("theirs/link").symlink_to("..")
    path = write(f"task = {str(task).format(absolute=Path('task.py').resolve())!r}")
    with pytest.raises(ConfigError, match="a task is Python that would be run") as caught:
        read_config(path)
    assert "ravine train TASK --config FILE" in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["task.py", "below/task.py"])
def test_a_task_beside_the_file_is_the_one_that_runs(name: str) -> None:
    Path("task.py").write_text("raise SystemExit", encoding="utf-8")
    Path("theirs", name).write_text(TASK, encoding="utf-8")
    made = configure(write(f'task = "{name}"\nepochs = 2'), {})
    assert Path(str(made.value("task"))) == Path("theirs", name)
    assert not Path("theirs", name).with_name("ran").exists()  # read, not run
    line = to_text(resolve(made)).splitlines()[0]
    assert tomllib.loads(line) == {"task": str(Path("theirs", name))}
    assert Path("theirs", name).with_name("ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        'optimizer = "__import__(\'os\').system(\'touch ran\')"',
        'optimizer = "adam(lr=open(\'ran\', \'w\'))"',
        "optimizer = \"adam(lr=().__class__.__bases__[0])\"",
        '[optimizer]\nname = "__import__"\nlr = "os"',
        '[optimizer]\nname = "adam"\nlr = "__import__(\'os\').system(\'touch ran\')"',
        '[optimizer]\nname = "adam"\n"lr=1) >> system(" = 3',
        '[optimizer]\nname = "adam(lr=1), open"\nlr = "os"',
        'regularize = ["open(\'ran\', \'w\')"]',
        'loss = "eval(\'open(\\"ran\\", \\"w\\")\')"',
        "pickle = \"gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAZ0b3VjaCB4lIWUUpQu\"",
    ],
)  # fmt: skip
def test_an_expression_runs_nothing(text: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(RavineError):
        read_config(write(text))
    after = sorted(path for path in Path().rglob("*") if path.name != "run.toml")
    assert after == [path for path in before if path.name != "run.toml"]


@pytest.mark.skipif(sys.platform == "win32", reason="such a name is no file there")
def test_a_file_name_cannot_write_lines_of_its_own() -> None:
    path = Path("run\nepochs = 99\n.toml")
    path.write_text('task = "wine"\nseed = 1', encoding="utf-8")
    printed = CliRunner().invoke(build_app(), ["train", "--config", str(path), "--dry-run"])
    assert printed.exit_code == 0, printed.output
    assert "\nepochs = 99" not in printed.stdout
    assert "seed = 1  # run epochs = 99 .toml" in printed.stdout
