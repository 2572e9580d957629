"""Task, metrics, loading, and what the built-in tasks promise."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ravine import losses
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    TaskError,
    UnknownNameError,
    UnknownOptionError,
)
from ravine.tasks import METRICS, TASKS, Task, load_task
from ravine.tasks.loss_names import loss_name
from ravine.tasks.metrics import InOriginalUnits
from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.text import KNOWN_SHA256

GOOD_FILE = """
import torch
import ravine.tasks

def task(seed):
    X = torch.rand(8, 2)
    return ravine.tasks.Task(model=torch.nn.Linear(2, 1), loss="mse", train=(X, X[:, :1]))
"""


def make(**changes):
    X = torch.arange(12.0).view(6, 2)
    settings = {"model": nn.Linear(2, 1), "loss": "mse", "train": (X, X[:, :1])}
    return Task(**(settings | changes))


# --- Task -----------------------------------------------------------------------------------


X, Y = torch.zeros(4, 2), torch.zeros(4, 1)
HOLED = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])

WRONG = {
    "lengths": ({"train": (X, Y[:3])}, "differ in length", "X (4, 2), y (3, 1)"),
    "empty": ({"train": (X[:0], Y[:0])}, "empty", "one row at least"),
    "array": ({"train": (np.zeros((4, 2)), Y)}, "X is not a tensor", "torch.as_tensor(X)"),
    "list": ({"train": (X, [0, 1, 0, 1])}, "y is not a tensor", "builtins.list"),
    "one tensor": ({"train": X}, "neither a pair", "train=(X, y)"),
    "triple": ({"train": (X, Y, Y)}, "neither a pair", "tuple of 3 items"),
    "nan": ({"train": (HOLED, Y[:2])}, "not finite", "nan at X[1, 0]"),
    "inf": ({"train": (X, Y + math.inf)}, "y holds values", "4 of 4; the first is inf"),
    "scalar": ({"train": (X[0, 0], Y)}, "single number", "X[None]"),
    "valid": ({"valid": (X, Y[:3])}, "differ in length", "valid of task 'task'"),
    "valid dtype": ({"valid": (X.double(), Y)}, "another kind", "torch.float64"),
    "empty dataset": ({"train": TensorDataset(X[:0], Y[:0])}, "empty", "TensorDataset"),
    "model": ({"model": lambda x: x}, "not a torch module", "function"),
    "model class": ({"model": nn.Linear}, "not a torch module", "call the class"),
    "loss": ({"loss": 3}, "neither a callable nor an expression", "got:      3"),
    "loss class": ({"loss": nn.MSELoss}, "neither a callable", "call the class"),
    "blank loss": ({"loss": " "}, "neither a callable", "loss="),
    "metrics": ({"metrics": "accuracy"}, "metrics is not a list", 'metrics=["accuracy"]'),
    "metric": ({"metrics": [3]}, "neither a name nor a function", "accuracy"),
    "metric twice": ({"metrics": ["accuracy", "accuracy"]}, "two metrics", "by name"),
    "epochs": ({"defaults": {"epochs": 0}}, "epochs is not a count", "got:      0"),
    "batch": ({"defaults": {"batch_size": True}}, "batch_size is not a count", "'all'"),
    "regularize": ({"defaults": {"regularize": "dropout(0.1)"}}, "not a list", "['dropout(0.1)']"),
    "name": ({"name": ""}, "name of the task", "not empty"),
    "defaults": ({"defaults": [1]}, "not a dictionary", "[1]"),
    "conversion": (
        {"train": TensorDataset(X, Y), "targets_for": {"hinge": torch.neg}},
        "targets_for",
        "TensorDataset",
    ),
}


@pytest.mark.parametrize("changes, what, detail", WRONG.values(), ids=WRONG)
def test_a_wrong_task_is_refused_with_the_mend(changes, what, detail):
    with pytest.raises(TaskError) as caught:
        make(**changes)
    assert what in caught.value.what
    assert detail in str(caught.value)


def test_unknown_metric_and_default_name_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        make(metrics=["acuracy"])
    with pytest.raises(UnknownOptionError, match="did you mean 'batch_size'"):
        make(defaults={"batchsize": 3})


def test_datasets_and_loaders_are_kept_as_they_are():
    data = TensorDataset(X, Y)
    loader = DataLoader(data, batch_size=2)
    task = make(train=data, valid=loader)
    assert task.train is data
    assert task.valid is loader
    assert "train 4, valid 4, test none" in repr(task)


def test_a_task_does_not_change_after_construction():
    with pytest.raises(AttributeError):
        make().loss = "huber"


def test_with_loss_converts_each_part_and_only_for_the_loss_in_the_table():
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    task = make(
        train=(X, y), valid=(X[:2], y[:2]), targets_for={"hinge": lambda y: 2 * y - 1}, baseline=1.0
    )
    hinge = task.with_loss("hinge(weight=2)")
    assert hinge.train[1].flatten().tolist() == [-1, 1, 1, -1]
    assert hinge.valid[1].flatten().tolist() == [-1, 1]
    assert hinge.model is task.model
    assert hinge.baseline is None
    assert task.train[1] is y
    assert task.with_loss("mse").train[1] is y
    # All targets equal: nothing can be guessed from the values, and nothing is.
    ones = make(train=(X, Y + 1), targets_for={"hinge": lambda y: 2 * y - 1})
    assert ones.with_loss("hinge").train[1].unique().tolist() == [1]
    with pytest.raises(TaskError, match="neither a callable"):
        task.with_loss(3)


def test_a_loss_is_named_by_expression_or_if_it_is_ours():
    def hinge(output, target):
        return output.mean()

    assert loss_name(hinge) is None
    hinge.__module__ = "ravine.losses"
    assert loss_name(hinge) == "hinge"
    for name, module in losses.LOSSES.items():
        assert loss_name(module) == loss_name(module()) == name
    assert loss_name(losses.KLDivergence()) == "kl_divergence"
    assert loss_name("huber(delta=") is None


# --- metrics --------------------------------------------------------------------------------


def test_accuracy_takes_class_indices_in_any_number_of_dimensions():
    logits = torch.eye(3).expand(2, 3, 3)
    target = torch.tensor([[0, 1, 2], [0, 0, 2]])
    values = METRICS["accuracy"](logits, target)
    assert values.tolist() == [[1, 1, 1], [1, 0, 1]]


def test_accuracy_of_one_logit_is_the_same_for_both_conventions():
    logit, target = torch.tensor([[-2.0], [3.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    accuracy = METRICS["accuracy"]
    assert accuracy(logit, target).flatten().tolist() == [1, 1, 0]
    assert torch.equal(accuracy(logit, target), accuracy(logit, 2 * target - 1))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_refuse_shapes_that_would_broadcast(name):
    with pytest.raises(ShapeError, match=r"\(4, 1\)"):
        METRICS[name](torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ShapeError, match="output"):
        METRICS[name](torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64))


def test_metric_in_original_units_undoes_the_standardisation():
    target = torch.tensor([[100.0], [180.0]], dtype=torch.float64)
    guess = torch.tensor([[110.0], [160.0]], dtype=torch.float64)
    error = InOriginalUnits("squared_error", mean=150.0, scale=80.0)
    values = error((guess - 150) / 80, (target - 150) / 80)
    torch.testing.assert_close(values.flatten(), torch.tensor([100.0, 400.0]).double())
    with pytest.raises(ArgumentError, match="scale"):
        InOriginalUnits("squared_error", mean=0, scale=0)


# --- preparation ----------------------------------------------------------------------------


def test_split_is_disjoint_complete_and_in_proportion_by_class():
    classes = torch.tensor([0] * 100 + [1] * 20)
    split = split_rows(120, 3, classes=classes, valid=0.2, test=0.1)
    rows = torch.cat([split.train, split.valid, split.test])
    assert rows.sort().values.tolist() == list(range(120))
    assert torch.bincount(classes[split.valid]).tolist() == [20, 4]
    assert torch.bincount(classes[split.test]).tolist() == [10, 2]
    assert torch.equal(split.valid, split_rows(120, 3, classes=classes, valid=0.2, test=0.1).valid)
    assert not torch.equal(split.valid, split_rows(120, 4, valid=0.2, test=0.1).valid)
    with pytest.raises(ArgumentError, match="too few rows"):
        split_rows(2, 0)


def test_standardiser_against_sklearn_with_a_constant_column():
    from sklearn.preprocessing import StandardScaler

    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    values[:, 1] = 7
    oracle = torch.as_tensor(StandardScaler().fit_transform(values.numpy())).float()
    torch.testing.assert_close(Standardiser.of(values)(values), oracle, rtol=1e-6, atol=1e-7)
    together = Standardiser.of(values, per_column=False)(values)
    assert abs(together.mean()) < 1e-6


def test_class_entropy_is_the_least_loss_of_a_constant():
    labels = torch.tensor([0, 0, 0, 1, 2])
    best = torch.tensor([0.6, 0.2, 0.2]).double().log().expand(5, 3)
    assert class_entropy(labels) == pytest.approx(float(F.cross_entropy(best, labels)), abs=1e-12)


def test_seeded_restores_every_generator():
    import random

    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(KeyError), seeded(5):
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert state == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


# --- load_task ------------------------------------------------------------------------------


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


# --- built-in tasks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_in():
    return {name: load_task(name, 0) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_built_in_is_deterministic_typed_and_disjoint(name, built_in):
    before = torch.get_rng_state()
    task, again, other = built_in[name], TASKS[name](0), TASKS[name](1)
    assert torch.equal(torch.get_rng_state(), before)
    assert task.name == name
    for key, value in task.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    assert not torch.equal(task.train[0], other.train[0])
    classes = task.loss == "cross_entropy"
    for part in (task.train, task.valid, task.test):
        assert part[0].dtype == (torch.int64 if name == "text" else torch.float32)
        assert part[1].dtype == (torch.int64 if classes else torch.float32)
        output = task.model(part[0][:3])
        expected = output.shape[:-1] if classes else output.shape
        assert part[1][:3].shape == expected
    assert torch.equal(task.train[0], again.train[0])
    assert set(task.defaults) >= {"optimizer", "epochs", "batch_size"}
    # Rows told apart by their bytes; digits and wine hold no row twice, text may hold a phrase.
    rows = [{row.numpy().tobytes() for row in part[0]} for part in (task.train, task.valid)]
    assert not rows[0] & rows[1]


@pytest.mark.parametrize("name", ["digits", "breast-cancer", "diabetes", "wine"])
def test_only_the_training_part_is_standardised_exactly(name, built_in):
    task = built_in[name]
    whole = name == "digits"
    for part, exact in ((task.train[0], True), (task.valid[0], False)):
        mean = part.double().mean() if whole else part.double().mean(0)
        assert bool((mean.abs() < 1e-6).all()) is exact


def test_baseline_is_the_loss_of_the_best_constant(built_in):
    task = built_in["diabetes"]
    y = task.train[1].double()
    assert task.baseline == pytest.approx(float(y.square().mean()), abs=1e-6)
    task = built_in["breast-cancer"]
    share = task.train[1].mean()
    logit = torch.full_like(task.train[1], float(torch.log(share / (1 - share))))
    best = F.binary_cross_entropy_with_logits(logit, task.train[1])
    assert task.baseline == pytest.approx(float(best), abs=1e-6)


def test_text_targets_are_one_ahead_and_the_model_looks_back_only(built_in):
    task = built_in["text"]
    X, y = task.train
    assert torch.equal(X[:, 1:], y[:, :-1])
    start = task.model(X[:2])
    changed = X[:2].clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % task.facts["alphabet"]
    torch.testing.assert_close(task.model(changed)[:, :40], start[:, :40])
    assert not torch.allclose(task.model(changed)[:, 40:], start[:, 40:])
    first = float(F.cross_entropy(start.flatten(0, 1), y[:2].flatten()).detach())
    assert first == pytest.approx(math.log(task.facts["alphabet"]), rel=0.1)
    with pytest.raises(ShapeError, match="T <= 64"):
        task.model(torch.zeros(1, 65, dtype=torch.int64))


def test_text_of_a_known_python_is_the_one_that_was_measured(built_in):
    version = ".".join(map(str, sys.version_info[:3]))
    found = built_in["text"].facts["text_sha256"]
    assert len(found) == 64
    assert found == KNOWN_SHA256.get(version, found)


def test_importing_tasks_leaves_sklearn_alone():
    code = "import sys, ravine.tasks; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what the suggested settings reach, in a plain loop of torch ------------------------------


def _cosine(steps, end):
    return lambda step: end + (1 - end) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


# The suggested expression beside the same choice in torch. torch's Adam adds `weight_decay * w`
# to the gradient, the penalty l2 * sum(w**2) adds 2 * l2 * w.
TWINS = {
    "digits": ("adam(lr=cosine(800, peak=2e-3, end=4e-5))", {"lr": 2e-3}, _cosine(800, 0.02), 0.4),
    "digits-cnn": (
        "adam(lr=cosine(500, peak=2e-3, end=4e-5))",
        {"lr": 2e-3},
        _cosine(500, 0.02),
        0.5,
    ),
    "breast-cancer": ("adam(lr=1e-2, l2=1e-2)", {"lr": 1e-2, "weight_decay": 2e-2}, None, 0.0),
    "diabetes": ("adam(lr=1e-2)", {"lr": 1e-2}, None, 0.0),
    "wine": ("adam(lr=1e-2)", {"lr": 1e-2}, None, 0.0),
}
LOSSES = {
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "hinge": lambda output, target: F.relu(1 - target * output).mean(),
    "mse": F.mse_loss,
    "huber": F.huber_loss,
}


@pytest.fixture
def one_thread():
    """Models this small lose time to a second thread: 20 times on a machine shared with others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(task, seed):
    """Train by the task's defaults; return the validation metrics after the last epoch."""
    expression, options, schedule, dropout = TWINS[task.name]
    assert task.defaults["optimizer"] == expression
    assert task.defaults.get("regularize", []) == ([f"dropout({dropout})"] if dropout else [])
    model, loss = task.model.train(), LOSSES[task.loss]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    optimizer = torch.optim.Adam(model.parameters(), fused=True, **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))
    X, y = task.train
    with seeded(100 + seed):
        for _ in range(task.defaults["epochs"]):
            for rows in torch.randperm(len(X)).split(task.defaults["batch_size"]):
                optimizer.zero_grad()
                loss(model(X[rows]), y[rows]).backward()
                optimizer.step()
                scheduler.step()
    model.eval()
    with torch.no_grad():
        output = model(task.valid[0])
    return {
        name: float(metric(output, task.valid[1]).mean())
        for name, metric in task.metric_functions().items()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "name, loss, least",
    [
        ("digits", "cross_entropy", 0.97),
        ("digits-cnn", "cross_entropy", 0.98),
        ("breast-cancer", "binary_cross_entropy", 0.95),
        ("breast-cancer", "hinge", 0.95),
        ("wine", "cross_entropy", 0.95),
    ],
)
def test_suggested_settings_reach_the_accuracy(name, loss, least, seed):
    task = load_task(name, seed)
    task = task if task.loss == loss else task.with_loss(loss)
    assert trained(task, seed)["accuracy"] >= least


def ridge_error(task):
    """Validation error of ridge regression, its penalty chosen on the training part alone."""
    from sklearn.linear_model import RidgeCV

    X, y = (part.numpy() for part in task.train)
    fitted = RidgeCV(alphas=np.logspace(-2, 3, 26)).fit(X, y.ravel())
    guess = torch.as_tensor(fitted.predict(task.valid[0].numpy())).float()[:, None]
    return float(task.metric_functions()["squared_error"](guess, task.valid[1]).mean())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("seed", range(5))
def test_diabetes_is_level_with_ridge_regression(loss, seed):
    task = load_task("diabetes", seed).with_loss(loss)
    assert trained(task, seed)["squared_error"] < 1.1 * ridge_error(task)
