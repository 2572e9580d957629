"""The choices of a run: losses, optimizers and regularisers in every form, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from names import named
from torch import Tensor, nn
from training_cases import line, mlp, points, same, task, weights

import ravine
from ravine import losses, optim, regularize
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExpressionError,
    RavineError,
    ShapeError,
    TaskError,
    UnknownNameError,
    UnknownOptionError,
)
from ravine.schedules import cosine


def own_loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


# Losses

SMOOTH = {"label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        ("cross_entropy", "cross_entropy()"),
        ("cross_entropy()", "cross_entropy()"),
        (losses.cross_entropy, "cross_entropy()"),
        (losses.CrossEntropy(), "cross_entropy()"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (nn.functional.cross_entropy, "cross_entropy"),
        (own_loss, "own_loss"),
        (partial(own_loss), "own_loss()"),
    ],
    ids=named,
)
@pytest.mark.parametrize("given_to", ["task", "train"])
def test_a_loss_in_every_form_is_the_same_loss(loss: Any, text: str, given_to: str) -> None:
    if given_to == "task":
        record = ravine.train(task(loss=loss), "sgd(lr=0.1)", epochs=3)
    else:
        record = ravine.train(task(loss="hinge"), "sgd(lr=0.1)", epochs=3, loss=loss)
    known = ravine.train(task(), "sgd(lr=0.1)", epochs=3)
    assert record.config["loss"] == text
    assert record.metrics["train/loss"] == pytest.approx(known.metrics["train/loss"], rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy(label_smoothing=0.1)",
        losses.CrossEntropy(label_smoothing=0.1),
        partial(losses.cross_entropy, label_smoothing=0.1),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ],
    ids=["text", "module", "partial", "torch"],
)
def test_the_options_of_a_loss_hold(loss: Any) -> None:
    record = ravine.train(task(loss=loss), "sgd(lr=0.1)", epochs=2)
    smoothed = ravine.train(task(), "sgd(lr=0.1)", epochs=2, regularize="label_smoothing(0.1)")
    assert record.metrics["valid/loss"] == pytest.approx(smoothed.metrics["valid/loss"], rel=1e-5)
    assert smoothed.config["loss"] == "cross_entropy(label_smoothing=0.1)"


def test_smoothing_that_contradicts_the_loss_is_refused() -> None:
    loss = "cross_entropy(label_smoothing=0.2)"
    with pytest.raises(ArgumentError, match="label_smoothing is given twice"):
        ravine.train(task(loss=loss), regularize="label_smoothing(0.1)")
    ravine.train(task(loss=loss), epochs=0, regularize="label_smoothing(0.2)")


@pytest.mark.parametrize("loss", ["mse", "huber(delta=2)", losses.Hinge(), nn.MSELoss(), own_loss])
def test_smoothing_of_a_loss_without_it_is_refused(loss: Any) -> None:
    with pytest.raises(UnknownOptionError, match="no option 'label_smoothing'") as caught:
        ravine.train(task(loss=loss), regularize="label_smoothing(0.1)")
    assert "use cross_entropy, or leave label_smoothing out" in str(caught.value)


def test_the_callers_loss_module_is_not_touched() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    ravine.train(task(loss=loss), epochs=1)
    assert loss.training
    assert loss.weight is not None


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("hubr(delta=2)", ExpressionError, ["unknown loss 'hubr'", "did you mean 'huber'?"]),
        ("huber(dleta=2)", ExpressionError, ["no option 'dleta'", "      ^^^^^", "'delta'"]),
        ("huber(delta=-2)", ExpressionError, ["delta", "^^^"]),
        ("huber(delta=2", ExpressionError, ["cannot read this loss"]),
        (3, TaskError, ["neither a callable nor an expression"]),
        (nn.MSELoss, TaskError, ["call the class"]),
        (lambda o, t: 1.0, ArgumentTypeError, ["did not return a tensor", "float"]),
        (lambda o, t: (o.sum(1) - t) ** 2, ShapeError, ["one number", "(40,)", "reduction='mean'"]),
        (lambda o, t: o.mean().detach(), ArgumentTypeError, ["without a graph", ".detach()"]),
        ("mse", RavineError, ["shape"]),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused(
    loss: Any, error: type[Exception], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        ravine.train(task(), loss=loss, epochs=1, run_dir=tmp_path / "deep" / "run")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing came of it, and nothing is left of it


# Optimizers

TORCH = {"lr": 0.05, "momentum": 0.9}


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        ("sgd(lr=0.05, momentum=0.9)", "sgd(lr=0.05, momentum=0.9)"),
        ("sgd(0.05, momentum=0.9)", "sgd(lr=0.05, momentum=0.9)"),
        (partial(optim.SGD, lr=0.05, momentum=0.9), "sgd(lr=0.05, momentum=0.9)"),
        (partial(torch.optim.SGD, lr=0.05, momentum=0.9), "SGD(lr=0.05, momentum=0.9)"),
        (lambda params: torch.optim.SGD(params, **TORCH), "<lambda>"),
        (lambda params: optim.SGD(params, **TORCH), "<lambda>"),
    ],
    ids=["text", "positional", "partial", "torch partial", "torch function", "function"],
)
def test_an_optimizer_in_every_form_is_the_same_optimizer(optimizer: Any, text: str) -> None:
    record = ravine.train(task(), optimizer, epochs=3)
    known = ravine.train(task(), "sgd(lr=0.05, momentum=0.9)", epochs=3)
    assert record.config["optimizer"] == text
    for name, value in weights(known.model).items():
        assert torch.allclose(record.model.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    assert record.history[0]["lr"] == 0.05


def test_a_class_and_a_rule_of_ones_own() -> None:
    @ravine.update_rule
    def sign_descent(w, g, *, lr=0.01):
        return w - lr * ((g > 0) * 1.0 - (g < 0) * 1.0)

    record = ravine.train(task(), partial(sign_descent, lr=0.02, l2=0.01), epochs=2)
    assert record.config["optimizer"] == "sign_descent(lr=0.02, l2=0.01)"
    moved = record.model[0].bias - task().model[0].bias
    assert torch.allclose((moved / 0.02).round(), moved / 0.02, atol=1e-3)
    assert ravine.train(task(), optim.Adam, epochs=1).config["optimizer"] == "adam()"


def test_a_schedule_is_followed_and_a_torch_optimizer_says_so() -> None:
    choice = "sgd(lr=warmup(2) >> cosine(4, peak=0.1))"
    record = ravine.train(task(), choice, batch_size=20, epochs=3)
    assert record.config["optimizer"] == choice
    # Steps 0 and 1 climb to the peak; the last of each epoch are the steps 1, 3 and 5.
    whole = cosine(4, peak=0.1)
    assert record.history.column("lr") == pytest.approx([0.1, whole(1), whole(3)], rel=1e-12)
    other = ravine.train(task(), partial(torch.optim.Adam, lr=1e-3), epochs=1)
    assert other.facts["kernel"] == "torch"
    assert other.facts["optimizer"].startswith("Adam (")


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("adm(lr=1)", ["unknown optimizer 'adm'", "^^^", "did you mean 'adam'?"]),
        ("adam(lr=1e-3, bats=(0, 0))", ["no option 'bats'", "^^^^", "did you mean 'betas'?"]),
        ("adam(lr=-1)", ["lr", "-1", "^^^^"]),
        ("adam(lr=1e-3", ["cannot read this optimizer"]),
        ("cosine(10, peak=1)", ["not that of an optimizer", "adam(lr=cosine("]),
        ("3", ["not that of an optimizer"]),
        (3, ["cannot", "3"]),
        (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), ["partial", "SGD"]),
        (lambda params: None, ["did not return an optimizer", "NoneType"]),
        (lambda params: optim.SGD(mlp().parameters(), lr=1.0), ["holds other weights"]),
        (torch.optim.LBFGS, ["closure", "LBFGS"]),
        (partial(optim.Adam, [], lr=1e-3), ["given its weights by the run"]),
    ],
    ids=named,
)
def test_an_optimizer_that_cannot_be_used_is_refused(optimizer: Any, words: list[str]) -> None:
    with pytest.raises(RavineError) as caught:
        ravine.train(task(), optimizer, epochs=1)
    if words[0] != "cannot":
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_model_without_weights_to_train_is_refused() -> None:
    frozen = mlp().requires_grad_(False)
    for optimizer in ("sgd(lr=1)", "sgd(lr=1, l2=1)", partial(torch.optim.SGD, lr=1.0)):
        with pytest.raises(TaskError, match="no weights to train"):
            ravine.train(task(model=frozen), optimizer)
        with pytest.raises(TaskError, match="no weights to train"):
            ravine.train(task(model=nn.Identity()), optimizer)


def test_frozen_weights_stay_and_the_rest_trains() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    for optimizer in ("adam(lr=0.1, l2=0.1)", "adam(lr=0.1)", partial(torch.optim.Adam, lr=0.1)):
        record = ravine.train(task(model=model), optimizer, epochs=2)
        assert torch.equal(record.model[0].weight, model[0].weight)
        assert not torch.equal(record.model[3].weight, model[3].weight)


# Decay leaves biases alone


@pytest.mark.parametrize("option", ["l2=0.5", "l1=0.5", "weight_decay=0.5"])
def test_penalties_and_decay_act_on_weights_and_not_on_biases(option: str) -> None:
    def still(output: Tensor, target: Tensor) -> Tensor:
        return 0.0 * output.sum()  # no gradient: whatever moves is moved by the penalty

    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    notes: list[Any] = []
    made = task(model=model, loss=still)
    record = ravine.train(made, f"sgd(lr=0.1, {option})", epochs=1, listeners=[notes.append])
    for name, before in model.named_parameters():
        moved = not torch.equal(record.model.get_parameter(name), before)
        assert moved == (name in ("0.weight", "2.weight")), name
    assert notes[0].notes == (
        f"{option.partition('=')[0]} on 56 weights; 27 biases and norm weights left out",
    )


def test_the_default_decay_of_adamw_leaves_biases_out_too() -> None:
    notes: list[Any] = []
    ravine.train(task(), "adamw(lr=0.1)", epochs=0, listeners=[notes.append])
    assert notes[0].notes == ("weight_decay on 112 weights; 19 biases and norm weights left out",)


def test_without_decay_there_is_one_group_and_no_note() -> None:
    notes: list[Any] = []
    record = ravine.train(task(), "adam", epochs=0, listeners=[notes.append])
    assert notes[0].notes == ()
    assert "1 group" in record.facts["optimizer"]


# Regularisers


@pytest.mark.parametrize(
    "given",
    [
        ["l2(0.1)", "clip_norm(1)"],
        [REG := regularize.REGULARIZERS["l2"](0.1), "clip_norm(1.0)"],
        (REG, regularize.REGULARIZERS["clip_norm"](1)),
        iter(["clip_norm(1)", "l2(0.1)"]),
    ],
    ids=["texts", "mixed", "objects", "iterator"],
)
def test_regularisers_in_every_form_are_options_of_the_optimizer(given: Any) -> None:
    record = ravine.train(task(), "sgd(lr=0.1)", epochs=2, regularize=given)
    known = ravine.train(task(), "sgd(lr=0.1, l2=0.1, clip_norm=1)", epochs=2)
    assert same(weights(record.model), weights(known.model))
    assert sorted(record.config["regularize"]) == ["clip_norm(1)", "l2(0.1)"] or sorted(
        record.config["regularize"]
    ) == ["clip_norm(1.0)", "l2(0.1)"]


def test_one_regulariser_needs_no_list_and_none_is_none() -> None:
    made = task(defaults={"regularize": ["dropout(0.5)"]})
    assert ravine.train(made, epochs=0).config["regularize"] == ["dropout(0.5)"]
    assert ravine.train(made, epochs=0, regularize="l2(1.0)").config["regularize"] == ["l2(1.0)"]
    assert ravine.train(made, epochs=0, regularize=REG).config["regularize"] == ["l2(0.1)"]
    for nothing in ((), [], "none", ["none"], [" none "]):
        assert ravine.train(made, epochs=0, regularize=nothing).config["regularize"] == []


@pytest.mark.parametrize(
    ("given", "optimizer", "words"),
    [
        (["l2(0.1)"], "sgd(lr=1, l2=0.2)", ["l2 is given twice", "l2=0.2 in the optimizer"]),
        (["l2(0.1)", "l2(0.1)"], None, ["l2 is given twice", "leave one out"]),
        (["dropout(0.1)", "dropout(0.2)"], None, ["dropout(0.1) and dropout(0.2)"]),
        (["early_stopping(1)", "early_stopping(2)"], None, ["early_stopping is given twice"]),
        (["l2(0.1)"], partial(torch.optim.SGD, lr=1.0), ["l2", "not Ravine's", "SGD(lr=1.0)"]),
        (["none", "l2(0.1)"], None, ["'none' stands for no regulariser"]),
        (["dropot(0.1)"], None, ["unknown regularizer 'dropot'", "did you mean 'dropout'?"]),
        (["dropout(q=0.1)"], None, ["no option 'q'", "^"]),
        (["dropout(1.5)"], None, ["1.5", "^^^"]),
        ([nn.Dropout(0.1)], None, ["not a regulariser", "dropout", "none"]),
        ([type(REG)], None, ["not a regulariser"]),
        (3, None, ["not a regulariser", "3"]),
        (
            "early_stopping(metric='valid/acuracy', mode='max')",
            None,
            ["did you mean 'valid/accuracy'?"],
        ),
    ],
    ids=named,
)
def test_regularisers_that_contradict_or_do_not_exist(
    given: Any, optimizer: Any, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RavineError) as caught:
        ravine.train(task(), optimizer, epochs=1, regularize=given, run_dir=tmp_path / "run")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_same_option_twice_with_one_value_is_no_contradiction() -> None:
    record = ravine.train(task(), "sgd(lr=1, l2=0.1)", epochs=0, regularize="l2(0.1)")
    assert record.config["optimizer"] == "sgd(lr=1, l2=0.1)"


def test_a_model_without_a_place_for_dropout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        ravine.train(line(), regularize="dropout(0.1)", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Tasks


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        ravine.train("digit")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such task file"]),
        ("def task(seed:\n", ["not valid Python", "line 1"]),
        ("def tsak(seed): ...\n", ["no function 'task'", "did you mean"]),
        ("def task(seed):\n    return 1 / 0\n", ["ZeroDivisionError", "line 2"]),
        ("def task(seed):\n    pass\n", ["is a return missing?"]),
    ],
    ids=["missing", "syntax", "name", "fails", "returns nothing"],
)
def test_a_task_file_that_cannot_be_used(
    text: str | None, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TaskError) as caught:
        ravine.train(file)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_loss_of_breast_cancer_decides_the_targets() -> None:
    record = ravine.train("breast-cancer", loss="hinge", epochs=2)
    assert record.config["loss"] == "hinge()"
    assert record.metrics["valid/accuracy"] > 0.8
    X, y = points()
    both = task(train=(X, y.float()[:, None]), valid=None, model=nn.Linear(4, 1), metrics=[])
    with pytest.raises(RavineError):
        ravine.train(both, loss="hinge", epochs=1)
