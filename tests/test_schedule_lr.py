"""A schedule given as lr, shown as a torch scheduler: it shows what comes, and sets nothing of its own."""

from __future__ import annotations

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentError
from ravine.optim import ScheduleLR
from ravine.schedules import cosine, plateau, warmup

SCHEDULE = warmup(3) >> cosine(6, peak=1.0)


def made(**options):
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    w.grad = torch.ones_like(w)
    return w, ravine.optim.SGD([w], **{"lr": SCHEDULE, **options})


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_how_often_it_is_called_changes_no_weight(calls):
    w, alone = made()
    v, shown = made()
    scheduler = ScheduleLR(shown)
    for step in range(12):
        if calls:
            assert scheduler.get_last_lr() == scheduler.get_lr() == [SCHEDULE(step)]
        alone.step()
        shown.step()
        assert shown.param_groups[0]["lr"] == SCHEDULE(step)
        assert torch.equal(w, v)
        for _ in range(calls):
            scheduler.step()


def test_it_is_a_torch_scheduler_and_nothing_is_to_be_saved():
    w, optimizer = made()
    scheduler = ScheduleLR(optimizer)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert scheduler.optimizer is optimizer
    assert "initial_lr" not in optimizer.param_groups[0]
    assert "step" not in vars(optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    v, resumed = made()
    other = ScheduleLR(resumed)
    with torch.no_grad():
        v.copy_(w)
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    other.step()
    assert other.get_last_lr() == [SCHEDULE(4)]
    optimizer.step()
    resumed.step()
    assert torch.equal(w, v)


def test_groups_with_a_number_keep_it_and_groups_added_later_are_shown():
    _, optimizer = made()
    v = torch.nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [v], "lr": 0.25})
    scheduler = ScheduleLR(optimizer)
    assert scheduler.get_last_lr() == [SCHEDULE(0), 0.25]
    optimizer.step()
    late = torch.nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [late]})
    scheduler.step()
    assert scheduler.get_last_lr() == [SCHEDULE(1), 0.25, SCHEDULE(0)]


def test_a_plateau_is_shown_as_soon_as_it_falls():
    _, optimizer = made(lr=plateau(0.5, factor=0.5, patience=0))
    scheduler = ScheduleLR(optimizer)
    for metric in (1.0, 1.0):
        optimizer.observe(metric)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]


@pytest.mark.parametrize("library", [ravine.optim, torch.optim])
def test_without_a_schedule_there_is_nothing_to_show(library):
    optimizer = library.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(ArgumentError) as caught:
        ScheduleLR(optimizer)
    assert str(caught.value) == (
        "the optimizer has no schedule to show\n  where:    ScheduleLR\n  got:      lr 0.5\n"
        "  expected: an optimizer of ravine.optim whose lr is a schedule\n"
        "  do:       give the schedule as lr, or a torch scheduler instead of this"
    )


def test_a_state_of_another_scheduler_is_refused():
    _, optimizer = made()
    with pytest.raises(ArgumentError) as caught:
        ScheduleLR(optimizer).load_state_dict({"gamma": 0.1, "last_epoch": 3})
    assert str(caught.value) == (
        "this state belongs to another scheduler\n  where:    ScheduleLR.load_state_dict\n"
        "  got:      gamma, last_epoch\n  expected: an empty state\n"
        "  do:       go on with the scheduler that it was saved from, or leave it out"
    )


def test_beside_a_torch_scheduler_it_is_refused():
    _, optimizer = made()
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.raises(ArgumentError, match="two schedules set the learning rate"):
        ScheduleLR(optimizer)
