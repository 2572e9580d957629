"""The loop: epochs of steps, watched for numbers that are not finite."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ravine.engine.norm import squared_norm
from ravine.errors import ArgumentTypeError, NonFiniteError, ShapeError, TaskError
from ravine.optim import Optimizer
from ravine.regularize import EarlyStopping
from ravine.tasks.metrics import Metric
from ravine.training.batches import Batches
from ravine.training.evaluation import evaluate
from ravine.training.events import StepDone

EVERY = 0.1
"""Seconds between two events of steps."""

CHECK_EVERY = 32
"""Steps between two looks at the loss on a device where looking means waiting for it."""


@dataclass
class Loop:
    """A training loop and where it stands.

    Attributes:
        model, optimizer, loss, batches: what is trained, by what, on what.
        valid: batches looked at after every epoch, or None.
        metrics: name -> function, for the validation data.
        stopper: decides on an early end, or None.
        emit: called with the events of steps, or None.
        look_every: steps between two looks at the loss.
        step: updates made so far.
        epoch: epochs completed.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Any
    batches: Batches
    valid: Batches | None
    metrics: dict[str, Metric]
    stopper: EarlyStopping | None
    emit: Callable[[StepDone], None] | None
    look_every: int = 1
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    _samples: int = 0
    _last_event: float = 0.0
    _kept: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keep()

    def run_epoch(self) -> tuple[dict[str, Any], bool]:
        """Train for one epoch; return its row of the history and whether to stop.

        Raises:
            NonFiniteError: a loss is NaN or infinite, or the weights are after the epoch. Where
                every loss is looked at (the CPU), the step of that loss was not made.
            TaskError: the training data has no batch.
        """
        start = time.perf_counter()
        self.model.train()
        total, rows = self._train()
        self._check_weights()
        self.seconds += time.perf_counter() - start
        self._samples += rows
        self.epoch += 1
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "lr": self.lr,
            "gradient_norm": self.gradient_norm(),
            "train/loss": total / rows,
        }
        stop = False
        with self.averaged():
            if self.valid is not None:
                row |= evaluate(self.model, self.valid, self.loss, self.metrics, part="valid")
            if self.stopper is not None:
                stop = self.stopper.observe(_measured(row), self.model)
            self._keep()
        if isinstance(self.optimizer, Optimizer):
            self.optimizer.observe(row.get("valid/loss", row["train/loss"]))
        row["seconds"] = time.perf_counter() - start
        return row, stop

    @property
    def lr(self) -> float:
        """The learning rate of the first group, as the last step used it."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def samples_per_second(self) -> float:
        """How many rows were trained on per second of training proper."""
        return self._samples / self.seconds if self.seconds else 0.0

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights."""
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        return math.sqrt(squared_norm(grads))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place, if the optimizer keeps an average."""
        keeps = isinstance(self.optimizer, Optimizer) and self.optimizer.averages
        with self.optimizer.averaged() if keeps else contextlib.nullcontext():  # type: ignore[attr-defined]
            yield

    def go_back(self) -> None:
        """Put back the weights of the end of the last epoch, or of the start."""
        with torch.no_grad():
            for name, now in _tensors(self.model):
                kept = self._kept.get(name)
                if kept is not None and kept.shape == now.shape:
                    now.copy_(kept)

    def _keep(self) -> None:
        with torch.no_grad():
            for name, now in _tensors(self.model):
                kept = self._kept.get(name)
                if kept is not None and kept.shape == now.shape:
                    kept.copy_(now)
                else:  # a model may make a buffer, or another size of it, as it runs
                    self._kept[name] = now.detach().clone()

    def _train(self) -> tuple[float, int]:
        """Make the steps of an epoch; return the sum of the losses over the rows, and the rows."""
        model, loss_of, optimizer, look = self.model, self.loss, self.optimizer, self.look_every
        weights = [p for p in model.parameters() if p.requires_grad]
        pending: list[Tensor] = []
        sizes: list[int] = []
        total, rows = 0.0, 0
        for inputs, targets in self.batches.epoch(self.epoch + 1):
            loss = loss_of(model(inputs), targets)
            if self.step == 0:
                _check_loss(loss)
            for weight in weights:
                weight.grad = None
            loss.backward()
            size = len(inputs)
            rows += size
            if look == 1:
                value = loss.item()
                if not math.isfinite(value):
                    self._not_finite(f"the loss became {value}", self.step + 1)
                total += value * size
            else:
                pending.append(loss.detach())
                sizes.append(size)
                if len(pending) == look:
                    total += self._settle(pending, sizes, self.step + 1)
            optimizer.step()
            self.step += 1
            if self.emit is not None and time.perf_counter() - self._last_event >= EVERY:
                self._report(loss)
        if pending:
            total += self._settle(pending, sizes, self.step)
        if rows == 0:
            raise TaskError(
                "the training data gave no batch",
                where=f"epoch {self.epoch + 1}",
                expected="one batch at least in every epoch",
                do="look at drop_last and the sampler; an iterator is used up after one epoch",
            )
        return total, rows

    def _settle(self, pending: list[Tensor], sizes: list[int], last: int) -> float:
        """Return the sum of the losses over their rows; raise if one is not finite.

        Args:
            pending: the losses; emptied.
            sizes: their rows; emptied.
            last: the step of the last of them, from 1.
        """
        total = 0.0
        first = last + 1 - len(pending)
        for step, (loss, size) in enumerate(
            zip(torch.stack(pending).tolist(), sizes, strict=True), start=first
        ):
            if not math.isfinite(loss):
                self._not_finite(f"the loss became {loss}", step)
            total += loss * size
        pending.clear()
        sizes.clear()
        return total

    def _check_weights(self) -> None:
        if not all(_is_finite(weight) for weight in self.model.parameters()):
            self._not_finite("the weights are not finite", self.step)

    def _not_finite(self, what: str, step: int) -> NoReturn:
        bad = [name for name, p in self.model.named_parameters() if not _is_finite(p)]
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        weights = f"not finite: {', '.join(bad[:3])}{more}" if bad else "the weights are finite"
        lr = self.lr
        raise NonFiniteError(
            what,
            where=f"step {step}, epoch {self.epoch + 1}",
            got=f"lr {lr:g}; {weights}",
            expected="a finite loss and finite weights",
            do=f"lower lr (try {lr / 10:g}), clip the gradient (clip_norm=1), warm up "
            "(lr=warmup(100) >> ...), or look for extreme values in the data",
        )

    def _report(self, loss: Tensor) -> None:
        assert self.emit is not None
        self._last_event = time.perf_counter()
        self.emit(
            StepDone(
                step=self.step,
                epoch=self.epoch + 1,
                loss=float(loss.detach()),
                lr=self.lr,
                gradient_norm=self.gradient_norm(),
            )
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_finite(tensor: Tensor) -> bool:
    tensor = tensor.detach()
    # A finite sum has finite terms only, and is quick; a sum may overflow all the same.
    if not tensor.is_complex() and math.isfinite(tensor.sum().item()):
        return True
    return bool(torch.isfinite(tensor).all())


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor):
        raise ArgumentTypeError(
            "the loss function did not return a tensor",
            got=type(loss).__name__,
            expected="a tensor with one element",
        )
    if loss.ndim != 0:
        raise ShapeError(
            "the loss function did not return one number",
            got=f"shape {tuple(loss.shape)}",
            expected="shape ()",
            do="reduce it: reduction='mean' or .mean()",
        )
    if not loss.requires_grad:
        raise ArgumentTypeError(
            "the loss does not depend on any weight that is trained",
            got="a loss without a graph",
            do="look for .detach(), torch.no_grad() or requires_grad=False on every weight",
        )


def _measured(row: dict[str, Any]) -> dict[str, float]:
    """Return what of a row is a loss or a metric."""
    return {name: value for name, value in row.items() if "/" in name}
