"""Optimizer in backward: what needs all gradients at once is refused, with the reason."""

from __future__ import annotations

import pytest
import torch
from test_optimizer_in_backward import model, train

import ravine
from ravine.engine.functions import model_sum
from ravine.errors import ArgumentError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"clip_norm": 1.0},
            "clip_norm cannot be used with in_backward=True\n  where:    AdamW\n"
            "  got:      clip_norm=1.0\n"
            "  expected: clip_norm=None: a weight is stepped before the gradients of the others "
            "are known\n"
            "  do:       leave in_backward out; the step after backward knows all gradients, or use "
            "clip_value",
        ),
        (
            {"skip_nonfinite": True},
            "skip_nonfinite cannot be used with in_backward=True\n  where:    AdamW\n"
            "  got:      skip_nonfinite=True\n"
            "  expected: skip_nonfinite=False: a weight is stepped before the gradients of the "
            "others are known\n"
            "  do:       leave in_backward out; the step after backward knows all gradients",
        ),
    ],
)
def test_options_that_need_all_gradients(option, message):
    net = model()
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.AdamW(net.parameters(), lr=0.1, in_backward=True, **option)
    assert str(caught.value) == message
    optimizer = ravine.optim.AdamW(net.parameters(), lr=0.1, in_backward=True)
    train(net, optimizer, range(1))
    optimizer.param_groups[0].update(option)
    with pytest.raises(ArgumentError, match=r"cannot be used with in_backward=True"):
        train(net, optimizer, range(1))


def test_a_rule_that_needs_the_norm():
    @ravine.update_rule
    def normalised(w, g, *, norm, lr):
        return w - lr * g / norm

    with pytest.raises(ArgumentError, match="normalised cannot be used with in_backward=True"):
        normalised(model().parameters(), lr=0.1, in_backward=True)


def test_a_second_gradient_is_refused():
    net = model()
    optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=True)
    rows = torch.ones(1, 5, dtype=torch.float64)
    net(rows).sum().backward()
    with pytest.raises(ArgumentError) as caught:
        net(rows).sum().backward()
    assert str(caught.value) == (
        "a weight has a second gradient before optimizer.step()\n"
        "  where:    SGD with in_backward=True, a weight of shape (1,)\n"
        "  expected: one backward(), then one step(): the first gradient has been used\n"
        "  do:       call optimizer.step() after every backward(); to accumulate gradients, and "
        "under DistributedDataParallel, which averages them too late, leave in_backward out"
    )
    optimizer.zero_grad()
    optimizer.step()
    net(rows).sum().backward()


def test_a_scaler_is_refused():
    net = model()
    optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=True)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(net(torch.ones(1, 5, dtype=torch.float64)).sum()).backward()
    with pytest.raises(ArgumentError) as caught:
        scaler.step(optimizer)
    assert str(caught.value) == (
        "a GradScaler cannot be used with in_backward=True\n  where:    SGD\n"
        "  expected: a loss that is not scaled: backward has stepped the weights already\n"
        "  do:       use autocast with bfloat16, which needs no scaler, or leave in_backward out"
    )


def test_a_rule_that_needs_a_sum_over_all_weights():
    @ravine.update_rule
    def by_model(w, g, *, lr):
        return w - lr * g / model_sum(g * g)

    with pytest.raises(ArgumentError, match="by_model cannot be used with in_backward=True"):
        by_model(model().parameters(), lr=0.1, in_backward=True)
