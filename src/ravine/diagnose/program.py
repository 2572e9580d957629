"""The person's program, built afresh for every replay from its function and a seed.

Optimizers, hooks and gradients may be bound to their model, so nothing is ever copied: what a
replay changes is changed in a program that was just made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.first_model import FirstModel
from ravine.schedules.base import Schedule
from ravine.schedules.scaled import Scaled
from ravine.tasks import Task, load_task
from ravine.tasks.loading import TaskSource
from ravine.tasks.seeding import seeded
from ravine.training.batches import BatchSize, evaluation_batches, training_batches
from ravine.training.batches.protocol import Batches
from ravine.training.catalog import (
    OptimizerChoice,
    choose_loss,
    choose_optimizer,
    choose_regularizers,
    merged,
)
from ravine.training.choices import BATCH_SIZE, EPOCHS, OPTIMIZER
from ravine.training.making import make_optimizer

__all__ = ["Change", "Fresh", "Program"]


@dataclass(frozen=True)
class Change:
    """What a replay does differently, each part None or 1 for "as it is".

    Attributes:
        says: the change as a sentence of the imperative.
        lr: a factor for every learning rate.
        epochs: a factor for the number of epochs, rounded up.
        best: whether the run ends with its epoch of the least validation loss.
        batch_size: another batch size.
        task: makes another task of the task, before anything else is made of it.
        model: changes the model in place, or returns another one, before the optimizer is made.
        optimizer: makes the optimizer from the weights, in the place of the program's.
        groups: changes the options of the optimizer in place, after it was made.
        order: another order of the training data's rows for each number; 0 is the program's.
        written: what says the same in a configuration, where that is more than the optimizer that
            is made, the epochs and the batch size: pairs of a key of `ravine.train`, one of its
            options after a dot, and its value; ``{lr}`` in it is the learning rate.
        parts: the changes that were joined.
    """

    says: str = "nothing"
    lr: float = 1.0
    epochs: float = 1.0
    best: bool = False
    batch_size: BatchSize | None = None
    task: Callable[[Task], Task] | None = None
    model: Callable[[nn.Module], nn.Module | None] | None = None
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    groups: Callable[[torch.optim.Optimizer], None] | None = None
    order: int = 0
    written: tuple[tuple[str, str], ...] = ()
    parts: tuple[Change, ...] = ()

    @property
    def steps(self) -> bool:
        """Whether it changes how, or how often, a step is made."""
        own = self.optimizer or self.groups or self.batch_size
        rates = (self.lr, self.epochs, self.best) != (1.0, 1.0, False)
        return own is not None or rates or any(k.startswith("optimizer") for k, _ in self.written)


@dataclass
class Fresh:
    """A program that was just made and has not taken a step."""

    task: Task
    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    train: Batches
    valid: Batches | None
    epochs: int
    seed: int
    device: torch.device

    @property
    def steps(self) -> int:
        """How many updates the whole run would make."""
        return self.epochs * (self.train.steps or 1)


@dataclass
class Program:
    """Makes the same program again and again.

    Args:
        source: a function of a seed, a built-in name, a file, or a Task (whose model is then
            trained in the first replay and put back to its first weights for the others).
        seed: of the run.
    """

    source: TaskSource
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _first: FirstModel | None = None

    def fresh(self, change: Change | None = None, seed: int | None = None) -> Fresh:
        """Return the program made anew, with one change; its random numbers follow from the seed."""
        change = change or Change()
        seed = self.seed if seed is None else seed
        with seeded(seed):
            return self._made(change, seed)

    def _made(self, change: Change, seed: int) -> Fresh:
        task = load_task(self.source, seed)
        if isinstance(self.source, Task):
            self._first = self._first or FirstModel(task.model)
            self.put_back()
        if change.task is not None:
            task = change.task(task)
        regularizers = choose_regularizers(task.regularize or ())
        model = task.model.to(self.device)
        for one in regularizers:
            one.prepare_model(model, seed=seed)
        if change.model is not None:
            model = change.model(model) or model
        loss, _ = choose_loss(task.loss, merged(one.loss_options() for one in regularizers))
        choice = OPTIMIZER if task.optimizer is None else task.optimizer
        options = merged(one.optimizer_options() for one in regularizers)
        maker: Any = change.optimizer or choose_optimizer(choice, options)[0]
        if isinstance(maker, OptimizerChoice):
            maker = _scaled_choice(maker, change.lr)
        optimizer = _optimizer(maker, model)
        for group in optimizer.param_groups:
            if change.lr != 1 and not isinstance(group.get("schedule"), Schedule):
                group["lr"] = group["lr"] * change.lr
        if change.groups is not None:
            change.groups(optimizer)
        size = change.batch_size or task.batch_size or BATCH_SIZE
        batches = training_batches(task.train, size, self.device, seed + change.order)
        valid = task.valid
        epochs = EPOCHS if task.epochs is None else task.epochs
        return Fresh(
            task=replace(task, model=model),
            model=model,
            loss=loss,
            optimizer=optimizer,
            scheduler=None if task.scheduler is None else task.scheduler(optimizer),
            train=batches,
            valid=None if valid is None else evaluation_batches(valid, self.device, batches.size),
            epochs=max(1, -int(-epochs * change.epochs // 1)),
            seed=seed,
            device=self.device,
        )

    def put_back(self) -> None:
        """Give a model that cannot be made anew the modules, hooks and weights it came with."""
        if self._first is not None:
            self._first.put_back()


def _optimizer(maker: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer as a run makes it: an optimizer of ours decays no biases.

    What a run refuses is made all the same: a person's own optimizer may hold other weights.
    """
    weights = list(model.parameters())
    if isinstance(maker, OptimizerChoice) and any(weight.requires_grad for weight in weights):
        return make_optimizer(maker, model)[0]
    made: torch.optim.Optimizer = maker(weights)
    return made


def _scaled_choice(choice: OptimizerChoice, factor: float) -> OptimizerChoice:
    lr = choice.keywords.get("lr")
    if factor == 1 or not isinstance(lr, Schedule):
        return choice
    return OptimizerChoice(choice.func, **{**choice.keywords, "lr": Scaled(lr, factor)})


def joined(one: Change, other: Change) -> Change:
    """Return both changes as one; what both change is taken from the second."""
    says = f"{one.says}, and {other.says}"
    plain = Change()
    kept = {
        name: value
        for name in Change.__dataclass_fields__
        if (value := getattr(other, name)) != getattr(plain, name)
    }
    parts = (one.parts or (one,)) + (other.parts or (other,))
    written = one.written + other.written
    return replace(one, **{**kept, "says": says, "parts": parts, "written": written})
