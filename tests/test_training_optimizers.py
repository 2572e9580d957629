"""The optimizer of a run: every form of it, what it acts on, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from names import named
from torch import Tensor, nn
from training_cases import mlp, task, weights

import ravine
from ravine import optim
from ravine.errors import RavineError, TaskError
from ravine.schedules import cosine

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
