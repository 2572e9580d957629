"""The printed configuration: it can be fed back, and the command does what it says."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import ravine
from ravine.cli import build_app
from ravine.errors import ConfigError
from ravine.tasks import TASKS
from ravine.training.config import configure, read_config, resolve, to_text
from ravine.training.config.toml import to_toml


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "run.toml") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def command(*words: str, train: Any = None) -> Any:
    return CliRunner().invoke(build_app(train=train), ["train", *words], prog_name="ravine")


@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.booleans(),
        )
    )
)
def test_what_is_written_as_toml_reads_the_same(values: list[Any]) -> None:
    again = tomllib.loads(f"a = {to_toml(values)}")["a"]
    assert again == values
    assert [type(value) for value in again] == [type(value) for value in values]


def test_floats_that_are_not_finite_are_toml() -> None:
    assert math.isnan(tomllib.loads(f"a = {to_toml(math.nan)}")["a"])
    with pytest.raises(ConfigError, match="cannot be written as TOML"):
        to_toml(None)
    with pytest.raises(ConfigError, match="cannot be written as TOML"):
        to_toml("\ud800")


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_printed_configuration_can_be_fed_back(task: str) -> None:
    first = to_text(resolve(configure(None, {"task": task}, ["optimizer.lr=1e-5"])))
    again = to_text(resolve(configure(write(first), {})))
    values = [re.sub("  # .*", "", text) for text in (first, again)]
    assert values[0] == values[1]
    assert "# run.toml" in again


def test_a_run_from_the_printed_configuration_has_the_same_bits() -> None:
    words = ["wine", "--epochs", "2", "--set", "optimizer.lr=0.02"]
    printed = command(*words, "--dry-run")
    assert printed.exit_code == 0, printed.output
    assert list(Path().iterdir()) == []
    path = write(printed.stdout)
    one = ravine.train("wine", "adam(lr=0.02)", epochs=2)
    two = ravine.train(**read_config(path))
    assert one.config == two.config
    assert one.history.column("train/loss") == two.history.column("train/loss")


def test_the_configuration_of_a_run_repeats_it() -> None:
    one = ravine.train("wine", "sgd(lr=cosine(9, peak=0.1))", epochs=2, seed=3, run_dir="first")
    two = ravine.train(**read_config("first/config.json"))
    assert one.config == two.config
    assert one.history.column("valid/loss") == two.history.column("valid/loss")


def test_the_command_trains_what_the_file_says() -> None:
    path = write('task = "digits"\nepochs = 4\noptimizer = "sgd(lr=0.1)"\nseed = 3')
    words = ["--config", str(path), "--seed", "5", "--set", "optimizer.lr=0.3", "--run-dir", "x"]
    done = command(*words, train=fake_run.train)
    assert done.exit_code == 0, done.output
    config = json.loads(Path("x/config.json").read_text(encoding="utf-8"))
    assert (config["task"], config["epochs"], config["seed"]) == ("digits", 4, 5)
    assert config["optimizer"] == "sgd(lr=0.3)"
    wrong = command("--config", str(write("epoch = 3")))
    assert wrong.exit_code == 2
    assert "did you mean 'epochs'?" in wrong.stderr
    assert "Missing argument 'TASK'" in " ".join(command("--dry-run").stderr.split())


def test_a_printed_configuration_as_json_can_be_fed_back() -> None:
    done = command("wine", "--dry-run", "--json")
    write(done.stdout, "run.json")
    assert json.loads(done.stdout)["sources"]["epochs"] == "task wine"
    assert read_config("run.json")["task"] == "wine"


def test_the_example_is_a_configuration() -> None:
    example = Path(__file__).parent.parent / "examples" / "run.toml"
    words = re.findall(r"--set (\S+)", example.read_text(encoding="utf-8"))
    assert len(words) == 1
    found = {line.name: line.value for line in resolve(configure(example, {}, words))}
    peak = "adam(lr=warmup(steps=50) >> cosine(steps=1300, peak=0.003), clip_norm=1.0)"
    assert found["optimizer"] == peak


def test_what_a_file_cannot_say_is_printed_as_a_comment() -> None:
    task = write(
        "import torch, ravine\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "def near(output, target):\n    return (output - target).abs().mean()\n"
        "def task(seed):\n    X = torch.ones(9, 1)\n"
        "    data = DataLoader(TensorDataset(X, X), batch_size=3)\n"
        "    return ravine.Task(model=torch.nn.Linear(1, 1), loss=near, train=data)\n",
        "own.py",
    )
    text = to_text(resolve(configure(None, {"task": str(task)})))
    assert '# loss = "near"  # not for a file: a function of the task\'s own' in text
    assert "# batch_size = 3  # not for a file: that of the task's DataLoader" in text
    assert read_config(write(text)).keys().isdisjoint({"loss", "batch_size"})


def test_a_run_that_goes_on_keeps_its_own_where_one_value_is_set() -> None:
    ravine.train("wine", "sgd(lr=0.1, momentum=0.5)", epochs=1, run_dir="first")
    made = configure(None, {"resume": "first"}, ["optimizer.lr=0.05", "epochs=2"])
    found = {line.name: (line.value, line.source) for line in resolve(made)}
    source = "the run that goes on, --set optimizer.lr"
    assert found["optimizer"] == ("sgd(lr=0.05, momentum=0.5)", source)
    assert found["task"][0] == "wine"
    record = ravine.train(**made.arguments())
    assert len(record.history) == 2
    assert [row["lr"] for row in record.history] == [0.1, 0.05]
