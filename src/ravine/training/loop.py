"""The loop: epochs of steps, watched for numbers that are not finite."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine.norm import squared_norm
from ravine.errors import ArgumentTypeError, NonFiniteError, ShapeError
from ravine.optim import Optimizer
from ravine.regularize import EarlyStopping
from ravine.tasks.checks import Data
from ravine.tasks.metrics import Metric
from ravine.training.batches import LoaderBatches, TensorBatches
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
        model, optimizer, loss, batches, device: what is trained, by what, on what.
        valid: data looked at after every epoch, or None.
        metrics: name -> function, for the validation data.
        stopper: decides on an early end, or None.
        emit: called with the events of steps.
        step: updates made so far.
        epoch: epochs completed.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Any
    batches: TensorBatches | LoaderBatches
    device: torch.device
    valid: Data | None
    metrics: dict[str, Metric]
    stopper: EarlyStopping | None
    emit: Callable[[StepDone], None]
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    _samples: int = 0
    _last_event: float = 0.0
    _pending: list[Tensor] = field(default_factory=list)

    def run_epoch(self) -> tuple[dict[str, Any], bool]:
        """Train for one epoch; return its row of the history and whether to stop.

        Raises:
            NonFiniteError: a loss is NaN or infinite; the step of that loss was not made.
        """
        start = time.perf_counter()
        self.model.train()
        total, rows = self._train()
        lr = float(self.optimizer.param_groups[0]["lr"])
        norm = self.gradient_norm()
        self.seconds += time.perf_counter() - start
        self._samples += rows
        self.epoch += 1
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "lr": lr,
            "gradient_norm": norm,
            "train/loss": total / rows,
        }
        if self.valid is not None:
            with self.averaged():
                row |= evaluate(
                    self.model,
                    self.valid,
                    self.loss,
                    self.metrics,
                    part="valid",
                    device=self.device,
                )
        row["seconds"] = time.perf_counter() - start
        if isinstance(self.optimizer, Optimizer):
            self.optimizer.observe(row.get("valid/loss", row["train/loss"]))
        stop = False
        if self.stopper is not None:
            with self.averaged():
                stop = self.stopper.observe(_measured(row), self.model)
        return row, stop

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
        keeps = isinstance(self.optimizer, Optimizer) and any(
            group["average"] is not None for group in self.optimizer.param_groups
        )
        with self.optimizer.averaged() if keeps else contextlib.nullcontext():  # type: ignore[attr-defined]
            yield

    def _train(self) -> tuple[float, int]:
        """Make the steps of an epoch; return the sum of the losses over the rows, and the rows."""
        model, loss_of, optimizer = self.model, self.loss, self.optimizer
        weights = [p for p in model.parameters() if p.requires_grad]
        look = 1 if self.device.type == "cpu" else CHECK_EVERY
        sizes: list[int] = []
        total, rows = 0.0, 0
        for inputs, targets in self.batches:
            loss = loss_of(model(inputs), targets)
            if self.step == 0:
                _check_loss(loss)
            for weight in weights:
                weight.grad = None
            loss.backward()
            self._pending.append(loss.detach())
            sizes.append(len(inputs))
            if len(sizes) >= look:
                total += self._settle(sizes)
                rows += sum(sizes)
                sizes.clear()
            optimizer.step()
            self.step += 1
            if time.perf_counter() - self._last_event >= EVERY:
                self._report(loss)
        if sizes:
            total += self._settle(sizes)
            rows += sum(sizes)
        return total, rows

    def _settle(self, sizes: list[int]) -> float:
        """Return the sum of the pending losses over their rows; raise if one is not finite."""
        losses = (
            [self._pending[0].item()]
            if len(self._pending) == 1
            else torch.stack(self._pending).tolist()
        )
        self._pending.clear()
        total = 0.0
        for back, (loss, size) in enumerate(zip(losses, sizes, strict=True)):
            if not math.isfinite(loss):
                self._not_finite(loss, self.step + 1 - (len(losses) - 1 - back))
            total += loss * size
        return total

    def _not_finite(self, loss: float, step: int) -> None:
        lr = float(self.optimizer.param_groups[0]["lr"])
        bad = [
            name for name, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())
        ]
        weights = "the weights are finite" if not bad else f"not finite: {', '.join(bad[:3])}"
        raise NonFiniteError(
            f"the loss became {loss}",
            where=f"step {step}, epoch {self.epoch + 1}",
            got=f"lr {lr:g}; {weights}",
            expected="a finite loss",
            do=f"lower lr (try {lr / 10:g}), clip the gradient (clip_norm=1), warm up "
            "(lr=warmup(100) >> ...), or look for extreme values in the data",
        )

    def _report(self, loss: Tensor) -> None:
        self._last_event = time.perf_counter()
        self.emit(
            StepDone(
                step=self.step,
                epoch=self.epoch + 1,
                loss=float(loss.detach()),
                lr=float(self.optimizer.param_groups[0]["lr"]),
                gradient_norm=self.gradient_norm(),
            )
        )


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
