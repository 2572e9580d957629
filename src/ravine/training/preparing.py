"""The loop of a run before its first step: a model of its own, put where it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

from ravine.training.acting import parts_of, stopper_of
from ravine.training.batches import evaluation_batches, training_batches
from ravine.training.choices import Choices
from ravine.training.devices import Devices, Team, notes_of, own_device
from ravine.training.hooks import Hooks
from ravine.training.loop import CHECK_EVERY, Loop
from ravine.training.making import make_optimizer
from ravine.training.reporter import Reporter
from ravine.training.scheduling import Scheduling

__all__ = ["prepared"]


def prepared(
    choices: Choices, team: Team, hooks: Hooks, check: Callable[[], None], reporter: Reporter
) -> tuple[Loop, list[str]]:
    """Return the loop, and what the user should know before it begins.

    Args:
        choices: what is trained, and how; the caller's model and loss stay as they are.
        team: the processes.
        hooks: the caller's own code.
        check: called after every step, and between the batches of an evaluation.
        reporter: tells the listeners of steps.
    """
    task, model = choices.task, copy.deepcopy(choices.task.model)
    notes = [
        note
        for one in choices.regularizers
        if (note := one.prepare_model(model, seed=choices.seed))
    ]
    device = own_device(choices.device)
    model.to(device)
    devices = Devices.made(model, choices.way, team, device)
    devices.own_masks(model)
    devices.own_random(choices.seed)
    optimizer, grouping = make_optimizer(choices.maker, model)
    batches = training_batches(task.train, choices.batch_size, device, choices.seed)
    loss = choices.loss
    if isinstance(loss, nn.Module):  # the caller's own stays where it is
        loss = copy.deepcopy(loss).to(device)
    scheduler = None
    if task.scheduler is not None:
        scheduler = Scheduling(task.scheduler, task.scheduler_interval, optimizer)
    loop = Loop(
        model=model,
        optimizer=optimizer,
        loss=loss,
        batches=batches,
        valid=None if task.valid is None else evaluation_batches(task.valid, device, batches.size),
        metrics=task.metric_functions(),
        stopper=stopper_of(choices.regularizers, task),
        parts=parts_of(choices.regularizers, choices.seed),
        scheduler=scheduler,
        epochs=choices.epochs,
        reporter=reporter,
        on_step=hooks.after_step,
        after_step=check,
        check=check,
        seed=choices.seed,
        look_every=1 if device.type == "cpu" else CHECK_EVERY,
        devices=devices,
    )
    return loop, notes + grouping + notes_of(model, choices.way, devices, batches.size)
