"""A schedule is saved as its expression and goes on where it was."""

from __future__ import annotations

import io

import pytest
import torch

import ravine.optim
from ravine.errors import RavineError
from ravine.schedules import constant, cosine, plateau, warmup


def weights():
    return [torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in ((3, 4), (), (5,))]


def copies(ws):
    return [torch.nn.Parameter(w.detach().clone()) for w in ws]


def steps(optimizer, ws, count, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for w in ws:
            w.grad = torch.randn(w.shape, dtype=torch.float64, generator=generator)
        optimizer.step()


def saved(optimizer):
    """Send a state dictionary through a file, as safely as torch can."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(ws, vs, rtol=1e-12):
    for w, v in zip(ws, vs, strict=True):
        torch.testing.assert_close(w, v, rtol=rtol, atol=1e-13 if rtol else 0)


SCHEDULE = warmup(3) >> cosine(9, peak=0.1)


@pytest.mark.parametrize("present", [SCHEDULE, 0.5, constant(0.7)], ids=repr)
def test_a_schedule_travels_and_goes_on_where_it_was(present):
    ws = weights()
    first = ravine.optim.Adam(ws, lr=SCHEDULE)
    steps(first, ws, 5, 1)
    vs = copies(ws)
    second = ravine.optim.Adam(vs, lr=present)
    second.load_state_dict(saved(first))
    assert second.param_groups[0]["schedule"] == SCHEDULE
    steps(first, ws, 10, 2)
    steps(second, vs, 10, 2)
    assert_same(ws, vs, rtol=0)


def test_what_a_plateau_has_heard_travels():
    def made(ws):
        return ravine.optim.SGD(ws, lr=plateau(1.0, factor=0.5, patience=0))

    ws = weights()
    first = made(ws)
    for metric in (3.0, 4.0, 2.0):
        steps(first, ws, 2, 1)
        first.observe(metric)
    vs = copies(ws)
    second = made(vs)
    second.load_state_dict(saved(first))
    for metric in (2.5, 1.0, 1.5):
        steps(first, ws, 2, 2)
        steps(second, vs, 2, 2)
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
        first.observe(metric)
        second.observe(metric)
    assert_same(ws, vs, rtol=0)
    assert first.param_groups[0]["lr"] < 0.5


def test_a_schedule_of_the_users_own_needs_to_be_there_when_loading():
    from dataclasses import dataclass

    from ravine.schedules import Schedule

    @dataclass(frozen=True, repr=False)
    class mine(Schedule):  # noqa: N801
        lr: float

        def equation(self, t):
            return self.lr / (1 + t)

    ws = weights()
    first = ravine.optim.SGD(ws, lr=mine(0.5))
    steps(first, ws, 3, 1)
    state = saved(first)
    second = ravine.optim.SGD(copies(ws), lr=mine(0.5))
    second.load_state_dict(state)
    third = ravine.optim.SGD(copies(ws), lr=0.1)
    with pytest.raises(RavineError) as caught:
        third.load_state_dict(state)
    assert str(caught.value) == (
        "the saved learning-rate schedule cannot be made again\n  got:      mine(0.5)\n"
        "  do:       make the optimizer with the same schedule as lr before loading"
    )


def test_a_torch_state_leaves_our_schedule_in_place():
    vs = weights()
    other = torch.optim.Adam(vs, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(other, SCHEDULE)
    generator = 1
    for _ in range(5):
        steps(other, vs, 1, generator)
        scheduler.step()
    ws = copies(vs)
    optimizer = ravine.optim.Adam(ws, lr=SCHEDULE)
    optimizer.load_state_dict(saved(other))
    for seed in range(5):
        steps(other, vs, 1, seed)
        scheduler.step()
        steps(optimizer, ws, 1, seed)
        assert_same(ws, vs)


def test_a_saved_state_holds_only_what_torch_loads_safely():
    ws = weights()
    optimizer = ravine.optim.Adam(ws, lr=plateau(0.1), average=0.9, clip_norm=1.0)
    steps(optimizer, ws, 2, 1)
    group = saved(optimizer)["param_groups"][0]
    assert group["schedule"] == repr(plateau(0.1))
    assert group["schedule_step"] == 2
