"""Every scheduler and weight averager of torch, driving our optimizers in lock-step with torch's."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as lr
from torch.optim import swa_utils

import ravine.optim

MADE = {
    "LambdaLR": lambda o: lr.LambdaLR(o, [lambda k: 0.9**k] * len(o.param_groups)),
    "MultiplicativeLR": lambda o: lr.MultiplicativeLR(o, lambda k: 0.95),
    "StepLR": lambda o: lr.StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda o: lr.MultiStepLR(o, [2, 5, 9], gamma=0.5),
    "ConstantLR": lambda o: lr.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr.LinearLR(o, 0.25, total_iters=6),
    "ExponentialLR": lambda o: lr.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr.PolynomialLR(o, 12, 2.0),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, 8, 0.001),
    "CosineAnnealingWarmRestarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 4, 2),
    "CyclicLR": lambda o: lr.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "OneCycleLR": lambda o: lr.OneCycleLR(o, max_lr=0.3, total_steps=25),
    "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "SequentialLR": lambda o: lr.SequentialLR(
        o, [lr.LinearLR(o, total_iters=3), lr.CosineAnnealingLR(o, 6), lr.ExponentialLR(o, 0.9)],
        [4, 9],
    ),
    "ChainedScheduler": lambda o: lr.ChainedScheduler(
        [lr.ConstantLR(o, 0.5, 3), lr.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=0.02, anneal_epochs=5),
}  # fmt: skip

RULES = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Adam": {"lr": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.5},
}


class Pair:
    """Two groups of the same weights twice, under our optimizer and under torch's."""

    def __init__(self, rule):
        self.ws = [torch.nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(3)]
        self.vs = [torch.nn.Parameter(w.detach().clone()) for w in self.ws]
        self.a, self.b = (
            getattr(module, rule)(
                [{"params": ws[:2]}, {"params": ws[2:], "lr": 0.04}], **RULES[rule]
            )
            for module, ws in ((ravine.optim, self.ws), (torch.optim, self.vs))
        )

    def step(self):
        for w, v in zip(self.ws, self.vs, strict=True):
            w.grad = torch.randn(4, dtype=torch.float64)
            v.grad = w.grad.clone()
        self.a.step()
        self.b.step()
        for w, v in zip(self.ws, self.vs, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)
        for mine, other in zip(self.a.param_groups, self.b.param_groups, strict=True):
            for name in ("lr", "momentum", "betas"):
                assert mine.get(name) == other.get(name)


def advance(name, k, *schedulers):
    for scheduler in schedulers:
        scheduler.step(*([[5, 4, 4, 4, 4, 3][k % 6]] if name == "ReduceLROnPlateau" else []))


def test_no_scheduler_of_torch_is_left_out():
    classes = {
        name
        for name, value in vars(lr).items()
        if isinstance(value, type)
        and issubclass(value, lr.LRScheduler)
        and not name.startswith("_")
    }
    assert classes - MADE.keys() == {"LRScheduler"}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("rule", RULES)
def test_lock_step_with_a_resume_in_the_middle(rule, name):
    pair = Pair(rule)
    mine, other = MADE[name](pair.a), MADE[name](pair.b)
    for k in range(11):
        pair.step()
        advance(name, k, mine, other)
    saved = through_a_file({"optimizer": pair.a.state_dict(), "scheduler": mine.state_dict()})
    pair.a = getattr(ravine.optim, rule)(
        [{"params": pair.ws[:2]}, {"params": pair.ws[2:]}], **RULES[rule]
    )
    mine = MADE[name](pair.a)
    mine.load_state_dict(saved["scheduler"])
    pair.a.load_state_dict(saved["optimizer"])
    for k in range(11, 22):
        pair.step()
        advance(name, k, mine, other)


def through_a_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_no_warning_about_the_order_of_steps():
    pair = Pair("Adam")
    scheduler = lr.StepLR(pair.a, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair.step()
        scheduler.step()
    late = lr.StepLR(ravine.optim.Adam([torch.nn.Parameter(torch.ones(1))]), 1)
    with pytest.warns(UserWarning, match="`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`"):
        late.step()


@pytest.mark.filterwarnings("ignore:.*has been overridden")  # as of a copy of torch's
def test_an_optimizer_under_a_scheduler_can_be_copied():
    pair = Pair("Adam")
    scheduler, _ = (lr.OneCycleLR(o, max_lr=0.3, total_steps=25) for o in (pair.a, pair.b))
    pair.step()
    ws, optimizer, again = copy.deepcopy((pair.ws, pair.a, scheduler))
    assert again.optimizer is optimizer
    for w in ws:
        w.grad = torch.ones_like(w)
    kept = [w.detach().clone() for w in pair.ws]
    optimizer.step()
    again.step()
    assert optimizer.param_groups[0]["lr"] != pair.a.param_groups[0]["lr"]
    assert all(map(torch.equal, kept, pair.ws))


# -- averages of the weights ------------------------------------------------------------------------


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
    ).double()


@pytest.mark.parametrize("average", ["swa", "ema"])
def test_averaged_models_and_their_batch_norms(average):
    x = torch.randn(8, 3, dtype=torch.float64)
    averages = []
    for module in (ravine.optim, torch.optim):
        trained = model()
        optimizer = module.SGD(trained.parameters(), lr=0.1, momentum=0.9)
        function = swa_utils.get_ema_multi_avg_fn(0.8) if average == "ema" else None
        kept = swa_utils.AveragedModel(trained, multi_avg_fn=function)
        scheduler = swa_utils.SWALR(optimizer, swa_lr=0.05)
        for _ in range(6):
            optimizer.zero_grad()
            trained(x).square().mean().backward()
            optimizer.step()
            kept.update_parameters(trained)
            scheduler.step()
        swa_utils.update_bn([x], kept)
        averages.append(kept.state_dict())
    torch.testing.assert_close(*averages, rtol=1e-12, atol=1e-13)
