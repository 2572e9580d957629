"""Torch's own keywords: taken where torch takes them, translated, or refused with what to do."""

from __future__ import annotations

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentError

BACKENDS = ["cpu", "reference"]


def weight(value=1.0):
    return torch.nn.Parameter(torch.full((3,), value, dtype=torch.float64))


def in_lock_step(ours, theirs, w, v, steps=8):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        w.grad = torch.randn(3, dtype=torch.float64, generator=generator)
        v.grad = w.grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_lr_and_betas_as_tensors(backend, shape):
    def tensor(value):
        return torch.full(shape, value, dtype=torch.float64)  # in float32 torch rounds them again

    w, v = weight(), weight()
    options = {"lr": tensor(0.1), "betas": (tensor(0.8), tensor(0.9))}
    ours = ravine.optim.Adam([w], backend=backend, **options)
    in_lock_step(ours, torch.optim.Adam([v], **options), w, v)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tensor_is_read_at_every_step(backend):
    w, v = weight(), weight()
    lr, *betas = torch.tensor([0.1, 0.8, 0.9], dtype=torch.float64)
    options = {"lr": lr, "betas": tuple(betas)}
    ours = ravine.optim.Adam([w], backend=backend, **options)
    theirs = torch.optim.Adam([v], **options)
    in_lock_step(ours, theirs, w, v)
    options["lr"].fill_(0.02)
    options["betas"][0].fill_(0.5)
    in_lock_step(ours, theirs, w, v)


def test_a_decision_by_a_tensor():
    w, v = weight(), weight()
    numbers = {"momentum": torch.tensor(0.5), "weight_decay": torch.tensor(0.0)}
    ours = ravine.optim.SGD([w], lr=0.1, **numbers)
    in_lock_step(ours, torch.optim.SGD([v], lr=0.1, momentum=0.5), w, v)
    assert "kernel of sgd:" in ours.explain()  # a decay of 0 is dropped


@pytest.mark.parametrize("name", ["Adam", "RAdam"])
@pytest.mark.parametrize("decoupled", [True, False])
def test_decoupled_weight_decay_of_the_optimizer_and_of_a_group(name, decoupled):
    for at in ("optimizer", "group"):
        w, v = weight(), weight()
        made = []
        for module, p in ((ravine.optim, w), (torch.optim, v)):
            given = {"decoupled_weight_decay": decoupled}
            of_group, of_all = (given, {}) if at == "group" else ({}, given)
            groups = [{"params": [p], **of_group}]
            made.append(getattr(module, name)(groups, lr=0.1, weight_decay=0.3, **of_all))
        assert made[0].param_groups[0]["decay"] == ("decoupled" if decoupled else "coupled")
        in_lock_step(*made, w, v)


def test_a_group_that_decays_otherwise_than_the_optimizer():
    optimizer = ravine.optim.Adam(
        [{"params": [weight()]}, {"params": [weight()], "decoupled_weight_decay": False}],
        decoupled_weight_decay=True,
    )
    assert [group["decay"] for group in optimizer.param_groups] == ["decoupled", "coupled"]


def test_contradicting_words_for_weight_decay():
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.Adam([weight()], decoupled_weight_decay=True, decay="independent")
    assert str(caught.value) == (
        "two options say differently what weight decay means\n  where:    Adam\n"
        "  got:      decoupled_weight_decay=True, decay='independent'\n  do:       give one of them"
    )


@pytest.mark.parametrize(
    ("keyword", "instead"),
    [
        (
            "differentiable",
            "use torch.optim's class of the same name to differentiate through a step",
        ),
    ],
)
def test_what_is_taken_as_false_only(keyword, instead):
    ravine.optim.Adamax([weight()], **{keyword: False})
    error = (
        f"{keyword} is not supported\n  where:    %s, option {keyword}\n  got:      True\n"
        f"  expected: False\n  do:       {instead}"
    )
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.Adamax([weight()], **{keyword: True})
    assert str(caught.value) == error % "Adamax"
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.Adamax([{"params": [weight()], keyword: True}])
    assert str(caught.value) == error % "Adamax, group 0"
