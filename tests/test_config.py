"""A configuration in a file: precedence, tables, `--set`, what is refused, what is printed back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ravine.errors import ConfigError, RavineError, UnknownNameError, UnknownOptionError
from ravine.training.config import configure, read_config, resolve
from ravine.training.config.options import options_of


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "run.toml") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


# Which wins


@pytest.mark.parametrize(
    ("file", "given", "assigned", "value", "source"),
    [
        ("", {}, [], 40, "task digits"),
        ("epochs = 3", {}, [], 3, "run.toml"),
        ("epochs = 3", {"epochs": 5}, [], 5, "command line"),
        ("epochs = 3", {}, ["epochs=7"], 7, "--set epochs"),
        ("", {}, ["epochs=7"], 7, "--set epochs"),
    ],
)
def test_the_command_line_wins_over_the_file_over_the_task(
    file: str, given: dict[str, Any], assigned: list[str], value: int, source: str
) -> None:
    path = write('task = "digits"\n' + file)
    (line,) = [x for x in resolve(configure(path, given, assigned)) if x.name == "epochs"]
    assert (line.value, line.source) == (value, source)


def test_the_defaults_of_training_come_last() -> None:
    task = write("""
import torch, ravine
def task(seed):
    X = torch.ones(4, 1)
    return ravine.Task(model=torch.nn.Linear(1, 1), loss="mse", train=(X, X))
""", "own.py")  # fmt: skip
    found = {x.name: (x.value, x.source) for x in resolve(configure(None, {"task": str(task)}))}
    assert found["epochs"] == (20, "default")
    assert found["batch_size"] == (64, "default")
    assert found["optimizer"] == ("adam(lr=0.001)", "default")
    assert found["loss"] == ("mse()", "task task")


def test_what_is_set_twice_on_the_command_line_is_an_error() -> None:
    with pytest.raises(ConfigError, match="epochs is set twice on the command line"):
        configure(None, {"epochs": 2}, ["epochs=3"])
    with pytest.raises(ConfigError, match=r"optimizer\.lr is set twice"):
        configure(None, {"task": "wine"}, ["optimizer.lr=3", "optimizer.lr=4"])


def test_options_follow_the_signature_of_training() -> None:
    import inspect

    from ravine.training.train import train

    options = options_of(train)
    left = inspect.signature(train).parameters.keys() - options.keys()
    assert {"task", "optimizer", "loss", "epochs", "seed", "run_dir", "resume"} <= options.keys()
    assert all(name == "listeners" or name.startswith("on_") for name in left), left
    assert {name for name, o in options.items() if o.path} == {"task", "run_dir", "resume"}


# Expressions


@pytest.mark.parametrize(
    ("table", "expression"),
    [
        ('[optimizer]\nname = "adam"\nlr = 1e-3\nclip_norm = 1', "adam(lr=0.001, clip_norm=1)"),
        (
            '[optimizer]\nname = "sgd"\nlr = "warmup(3) >> cosine(9, peak=1e-3)"\nnesterov = false',
            "sgd(lr=warmup(3) >> cosine(9, peak=1e-3), nesterov=False)",
        ),
        (
            '[optimizer]\nname = "adam"\nbetas = [0.9, 0.99]\nstate_dtype = "int8"\n'
            '[optimizer.lr]\nname = "cosine"\nsteps = 9\npeak = 1e-3',
            "adam(betas=[0.9, 0.99], state_dtype='int8', lr=cosine(steps=9, peak=0.001))",
        ),
        ('[optimizer]\nname = "adam"', "adam()"),
    ],
)
def test_a_table_is_an_expression(table: str, expression: str) -> None:
    assert read_config(write(table)) == {"optimizer": expression}


def test_tables_in_a_list_are_regularisers() -> None:
    path = write(
        '[[regularize]]\nname = "dropout"\np = 0.1\n'
        '[[regularize]]\nname = "early_stopping"\nmetric = "valid/loss"'
    )
    assert read_config(path)["regularize"] == [
        "dropout(p=0.1)",
        "early_stopping(metric='valid/loss')",
    ]


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("optimizer.lr=3e-4", "optimizer", "adam(lr=0.0003, betas=(0.8, 0.9))"),
        ("optimizer.clip_norm=1", "optimizer", "adam(lr=0.001, betas=(0.8, 0.9), clip_norm=1)"),
        (
            "optimizer.lr=warmup(5) >> cosine(9, peak=1e-3)",
            "optimizer",
            "adam(lr=warmup(5) >> cosine(9, peak=0.001), betas=(0.8, 0.9))",
        ),
        (
            "optimizer.state_dtype=int8",
            "optimizer",
            "adam(lr=0.001, betas=(0.8, 0.9), state_dtype='int8')",
        ),
        ("loss.label_smoothing=0.1", "loss", "cross_entropy(label_smoothing=0.1)"),
        ("regularize.dropout.p=0.3", "regularize", ["dropout(p=0.3)", "l2(0.1)"]),
        (
            "regularize=['dropout(0.2)', 'none']", "regularize", ["dropout(0.2)", "none"],
        ),
        ("batch_size=all", "batch_size", "all"),
        ("batch_size=32", "batch_size", 32),
        ("device=cpu", "device", "cpu"),
        ("run_dir=7", "run_dir", "7"),
        ("run_dir=/tmp/there", "run_dir", "/tmp/there"),
        ("optimizer=sgd(lr=0.1)", "optimizer", "sgd(lr=0.1)"),
        ("task=wine", "task", "wine"),
    ],
)  # fmt: skip
def test_one_value_is_set(assignment: str, name: str, value: object) -> None:
    path = write(
        'task = "digits"\noptimizer = "adam(1e-3, betas=(0.8, 0.9))"\n'
        'loss = "cross_entropy"\nregularize = ["dropout(0.1)", "l2(0.1)"]'
    )
    assert read_config(path, assignment)[name] == value


def test_an_option_of_a_schedule_is_set_where_only_one_has_it() -> None:
    path = write('optimizer = "adam(lr=warmup(5) >> cosine(9, peak=1e-3))"')
    made = read_config(path, "optimizer.lr.peak=0.5")["optimizer"]
    assert made == "adam(lr=warmup(steps=5) >> cosine(steps=9, peak=0.5))"
    with pytest.raises(ConfigError, match=r"optimizer\.lr\.steps stands for more than one"):
        read_config(path, "optimizer.lr.steps=3")


def test_an_option_is_set_in_what_the_task_suggests() -> None:
    made = configure(None, {"task": "digits"}, ["optimizer.lr=3e-4", "regularize.dropout.p=0.2"])
    assert made.value("optimizer") == "adam(lr=0.0003)"
    assert made.value("regularize") == ["dropout(p=0.2)"]
    assert made.settings["optimizer"].source == "task digits, --set optimizer.lr"


# Errors


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("epoch = 3", UnknownOptionError, "did you mean 'epochs'?"),
        ("batch-size = 3", UnknownOptionError, "did you mean 'batch_size'?"),
        ("listeners = []", UnknownOptionError, "training has no option 'listeners'"),
        ('epochs = "3"', ConfigError, "where:    epochs in run.toml\n  got:      '3'"),
        ("epochs = true", ConfigError, "expected: an integer"),
        ("seed = 1.5", ConfigError, "seed has a value of the wrong type"),
        ("device = 3", ConfigError, "expected: text"),
        ("optimizer = 3", ConfigError, "expected: text or a table with a name"),
        ("regularize = [3]", ConfigError, "regularize holds what is no expression"),
        ("[optimizer]\nlr = 1", ConfigError, 'a name, such as name = "adam"'),
        ('[optimizer]\nname = "adm"', UnknownNameError, "did you mean 'adam'?"),
        ('[optimizer]\nname = "cosine"', UnknownNameError, "one of adadelta, adafactor, "),
        ('[optimizer]\nname = "adam"\nlr = {name = "adm"}', UnknownNameError, "constant, cosine,"),
        ('[optimizer]\nname = "adam"\nlrr = 1', UnknownOptionError, "did you mean 'lr'?"),
        ('[optimizer]\nname = "adam"\nlr = inf', ConfigError, "lr in optimizer in run.toml"),
        ('[optimizer]\nname = "adam"\nlr = 2020-01-01', ConfigError, "date 2020-01-01"),
        ('optimizer = "adam(lrr=1)"', ConfigError, "did you mean 'lr'?"),
        ('loss = "hubber"', ConfigError, "did you mean 'huber'?"),
        ("[device]\nname = 'x'", ConfigError, "device has a value of the wrong type"),
        ("epochs 3", ConfigError, "the configuration is not TOML"),
        ("a = " + "[" * 5000, ConfigError, "the configuration is not TOML"),
        ("seed = " + "9" * 5000, ConfigError, "the configuration is not TOML"),
        ("# " + "x" * (1 << 20), ConfigError, "too large to be one"),
    ],
)
def test_what_cannot_be_used_is_told(text: str, error: type[RavineError], message: str) -> None:
    with pytest.raises(error) as caught:
        read_config(write(text))
    assert message in str(caught.value)
    assert "run.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "did you mean 'epochs'?"),
        ("optimizer.lrr=3", "did you mean 'lr'?"),
        ("epochs", "expected: KEY=VALUE"),
        (".lr=3", "expected: KEY=VALUE"),
        ("epochs=many", "got:      'many'"),
        ("epochs.lr=3", "epochs has no options of its own"),
        ("optimizer.lr.peak=3", "optimizer.lr has no options of its own"),
        ("optimizer.eps.peak=3", "it is not given"),
        ("regularize.dropot.p=0.1", "did you mean 'dropout'?"),
        ("regularize.dropout=0.1", "expected: regularize.dropout.OPTION=VALUE"),
        ("optimizer.lr=cosine(9)", "cosine needs peak"),
        ("optimizer.lr=__import__('os').system('x')", "not part of an expression"),
        ("listeners=[]", "training has no option 'listeners'"),
    ],
)
def test_a_value_that_cannot_be_set_is_told(assignment: str, message: str) -> None:
    with pytest.raises(RavineError) as caught:
        configure(None, {"task": "digits", "optimizer": "adam(lr=1)"}, [assignment])
    assert message in str(caught.value)
    assert f"--set {assignment}" in str(caught.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ConfigError, match="the configuration cannot be read"):
        read_config("none.toml")


def test_json_with_a_key_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a key is there twice"):
        read_config(write('{"epochs": 1, "epochs": 2}', "run.json"))
