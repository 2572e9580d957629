"""What a run was for, when it is over: the weights in place, and their numbers."""

from __future__ import annotations

import torch

from ravine.training.batches import evaluation_batches
from ravine.training.choices import Choices
from ravine.training.devices import own_device
from ravine.training.evaluation import evaluate
from ravine.training.loop import Loop
from ravine.training.record import Record

__all__ = ["settle"]


def settle(choices: Choices, loop: Loop, record: Record) -> None:
    """Put the weights in place that the run was for, and take their numbers."""
    model, stopper = loop.model, loop.stopper
    with loop.averaged():
        tensors = [*model.parameters(), *model.buffers()]
        final = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        for tensor, value in zip(tensors, final, strict=True):
            tensor.copy_(value)
    row = record.history[-1] if record.history else {}
    best: dict[str, float] = {}
    if stopper is not None and stopper.restore_best and stopper.best_epoch is not None:
        stopper.restore(model)
        row = record.history[stopper.best_epoch - 1]
        best = {"best_epoch": stopper.best_epoch}
        kept = f"the weights of epoch {stopper.best_epoch} are kept"
        record.message = "; ".join(filter(None, [record.message, stopper.message, kept]))
    elif stopper is not None and record.status == "stopped early":
        record.message = record.message or stopper.message
    model.eval()
    for weight in model.parameters():
        weight.grad = None
    record.metrics = {name: value for name, value in row.items() if "/" in name} | best
    if choices.task.test is not None and record.status in ("completed", "stopped early"):
        device = own_device(choices.device)
        test = evaluation_batches(choices.task.test, device, loop.batches.size)
        record.metrics |= evaluate(
            model, test, loop.loss, loop.metrics, part="test", devices=loop.devices
        )
    record.model = loop.devices.plain()
