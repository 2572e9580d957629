"""Remedies of the loss: its sign, its shapes, and the one that fits the targets."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from ravine.diagnose.program import Change, joined
from ravine.diagnose.treatments.model import last_weighted
from ravine.tasks import Task
from ravine.training.catalog import choose_loss


def _with_loss(task: Task, loss: Any) -> Task:
    return dataclasses.replace(task, loss=loss, targets_for={}, baseline=None)


def _negated(task: Task) -> Task:
    loss, _ = choose_loss(task.loss, {})
    return _with_loss(task, lambda output, target: -loss(output, target))


def _reshaped(task: Task) -> Task:
    loss, _ = choose_loss(task.loss, {})
    return _with_loss(task, lambda output, target: loss(output.reshape(target.shape), target))


def cross_entropy_last(output: Tensor, target: Tensor) -> Tensor:
    """Return torch's cross-entropy with the classes in the last dimension."""
    if target.is_floating_point():
        target = (
            target.argmax(-1) if target.ndim == output.ndim > 1 and target.shape[-1] > 1 else target
        )
        target = target.reshape(output.shape[:-1]).long()
    return nn.functional.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


def _cross_entropy(task: Task) -> Task:
    return _with_loss(task, cross_entropy_last)


def _bce(task: Task) -> Task:
    return _with_loss(
        task,
        lambda output, target: nn.functional.binary_cross_entropy_with_logits(
            output.reshape(target.shape), target
        ),
    )


def _mse(task: Task) -> Task:
    return _with_loss(
        task, lambda output, target: nn.functional.mse_loss(output.reshape(target.shape), target)
    )


NEGATE = Change("take the negative of the loss", task=_negated)
RESHAPE = Change("give output and targets the same shape", task=_reshaped)
CROSS_ENTROPY = Change(
    "take the cross-entropy of the outputs",
    task=_cross_entropy,
    written=(("loss", "cross_entropy"),),
)
BINARY = Change(
    "take the binary cross-entropy of the outputs",
    task=_bce,
    written=(("loss", "binary_cross_entropy"),),
)
SQUARES = Change("take the mean squared error", task=_mse, written=(("loss", "mse"),))


class _ToClasses:
    """Widens the last layer to a number of classes; targets that are whole numbers become labels."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def model(self, model: nn.Module) -> None:
        found = last_weighted(model)
        if found is None:
            return
        parent, key, old = found
        if isinstance(old, nn.Linear):
            parent._modules[key] = nn.Linear(old.in_features, self.classes)

    @staticmethod
    def task(task: Task) -> Task:
        changes: dict[str, Any] = {}
        for part in ("train", "valid", "test"):
            data = getattr(task, part)
            if isinstance(data, tuple) and data[1].is_floating_point():
                y: Tensor = data[1]
                wide = y.ndim > 1 and y.shape[-1] > 1
                changes[part] = (data[0], y.argmax(-1) if wide else y.reshape(-1).long())
        changed = dataclasses.replace(task, targets_for={}, **changes)
        return _with_loss(changed, cross_entropy_last)


def as_classes(classes: int) -> Change:
    """Return one output a class, and the cross-entropy of them."""
    made = _ToClasses(classes)
    return Change(
        f"give the model {classes} outputs, one a class, and take their cross-entropy",
        model=made.model,
        task=made.task,
    )


def and_also(one: Change, other: Change) -> Change:
    """Return both changes, applied one after the other where they change the same part."""
    both = joined(one, other)
    for part in ("model", "groups"):
        first, second = getattr(one, part), getattr(other, part)
        if first and second:
            both = dataclasses.replace(both, **{part: _in_turn(first, second)})
    if one.task and other.task:
        first_task, second_task = one.task, other.task
        both = dataclasses.replace(both, task=lambda task: second_task(first_task(task)))
    return both


def _in_turn(first: Any, second: Any) -> Any:
    def change(thing: Any) -> Any:
        changed = first(thing) or thing
        return second(changed) or changed

    return change
