"""Our schedules as lr, and lr as a tensor."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import cosine, exponential, plateau, step, warmup


def twins(rule="SGD", mine=None, **options):
    ws = [torch.nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2)]
    vs = [torch.nn.Parameter(w.detach().clone()) for w in ws]
    a = getattr(ravine.optim, rule)(ws, **(options if mine is None else options | mine))
    b = getattr(torch.optim, rule)(vs, **options)
    return ws, vs, a, b


def set_gradients(ws, vs):
    for w, v in zip(ws, vs, strict=True):
        w.grad = torch.randn(4, dtype=torch.float64)
        v.grad = w.grad.clone()


def assert_same(ws, vs):
    for w, v in zip(ws, vs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "schedule",
    [
        cosine(10, peak=0.3, end=0.01),
        warmup(4) >> cosine(8, peak=0.3),
        exponential(0.2, 0.1),
        step(0.3, every=4, factor=0.3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_schedule_as_lr_equals_lambda_lr_on_torch(schedule, backend):
    ws, vs, a, b = twins("Adam", {"lr": schedule, "backend": backend}, lr=1.0)
    scheduler = lr_scheduler.LambdaLR(b, schedule)
    for _ in range(20):
        set_gradients(ws, vs)
        a.step()
        b.step()
        scheduler.step()
        assert_same(ws, vs)


def test_groups_have_schedules_of_their_own():
    ws, vs, _, _ = twins(lr=0.1)
    schedules = [cosine(6, peak=0.3), exponential(0.2, 0.5)]
    a = ravine.optim.SGD(
        [{"params": [w], "lr": s} for w, s in zip(ws, schedules, strict=True)], lr=0.7
    )
    b = torch.optim.SGD([{"params": [v]} for v in vs], lr=1.0)
    scheduler = lr_scheduler.LambdaLR(b, schedules)
    for _ in range(8):
        set_gradients(ws, vs)
        a.step()
        b.step()
        scheduler.step()
        assert_same(ws, vs)


def test_a_group_may_leave_the_schedule_out():
    ws, vs, _, _ = twins(lr=0.1)
    a = ravine.optim.SGD(
        [{"params": [ws[0]]}, {"params": [ws[1]], "lr": 0.25}], lr=cosine(4, peak=1.0)
    )
    set_gradients(ws, vs)
    for _ in range(3):
        a.step()
    assert a.param_groups[1]["lr"] == 0.25
    assert a.param_groups[0]["lr"] == cosine(4, peak=1.0)(2)


def test_two_schedules_at_once_are_refused():
    ws, vs, a, _ = twins("SGD", {"lr": cosine(4, peak=1.0)}, lr=0.1)
    lr_scheduler.StepLR(a, 2)
    set_gradients(ws, vs)
    with pytest.raises(ArgumentError) as caught:
        a.step()
    assert str(caught.value) == (
        "two schedules set the learning rate\n  where:    SGD, lr\n"
        "  got:      cosine(4, peak=1.0) as lr, and a torch.optim.lr_scheduler\n"
        "  do:       give lr as a number, or leave torch's scheduler out; a loop that insists on a "
        "scheduler takes ravine.optim.ScheduleLR(optimizer)"
    )


def test_plateau_equals_torchs():
    options = {"factor": 0.5, "patience": 1}
    ws, vs, a, b = twins("SGD", {"lr": plateau(0.4, **options)}, lr=0.4)
    scheduler = lr_scheduler.ReduceLROnPlateau(b, **options)
    for metric in (5.0, 4.0, 4.5, 4.6, 4.7, 3.0, 3.5, 3.6, 3.7, 3.8):
        for _ in range(2):
            set_gradients(ws, vs)
            a.step()
            b.step()
            assert_same(ws, vs)
        a.observe(metric)
        scheduler.step(metric)
    assert a.param_groups[0]["lr"] < 0.4


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_lr_as_a_tensor_is_read_at_every_step(backend):
    w = torch.nn.Parameter(torch.zeros(2))
    lr = torch.tensor(0.5)
    optimizer = ravine.optim.SGD([w], lr=lr, backend=backend)
    w.grad = torch.ones(2)
    optimizer.step()
    lr.fill_(0.25)
    optimizer.step()
    assert w.tolist() == [-0.75, -0.75]
