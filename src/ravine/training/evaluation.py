"""Loss and metrics over data that is only looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ShapeError, TaskError
from ravine.tasks.metrics import Metric
from ravine.training.batches import Batches
from ravine.training.devices import Devices


def evaluate(
    model: nn.Module,
    batches: Batches,
    loss: Any,
    metrics: Mapping[str, Metric],
    *,
    part: str,
    check: Callable[[], None] | None = None,
    devices: Devices | None = None,
) -> dict[str, float]:
    """Return ``part/loss`` and the metrics, with the model in evaluation mode.

    The loss of a batch counts by its rows, a metric by the values that it returns.

    Args:
        model: stays in the mode it was in.
        batches: of the part's data, on the model's device.
        loss: a callable of (output, target).
        metrics: functions by name.
        part: the part's name, "valid" or "test".
        check: called before every batch; what it raises ends the evaluation.
        devices: how the model is computed; each of its processes takes its rows of every batch.

    Raises:
        ShapeError: a metric returned nothing. TaskError: the data has no batch.
    """
    devices = devices or Devices.alone(model)
    devices.share_buffers(model)
    was_training = model.training
    model.eval()
    rows, total_loss = 0, 0.0
    sums = dict.fromkeys(metrics, 0.0)
    counts = dict.fromkeys(metrics, 0)
    try:
        # Not inference_mode: what a model keeps of its forward could then never be trained through.
        with torch.no_grad(), contextlib.closing(batches.epoch(1)) as looked_at:
            for inputs, targets in looked_at:
                if check is not None:
                    check()
                rows += len(targets)
                own = devices.parts.looked_at(inputs, targets, loss)
                output = devices.forward(own.inputs)
                if own.share:
                    total_loss += float(loss(output, own.targets)) * own.share * len(targets)
                if own.stands_in:
                    continue
                for name, metric in metrics.items():
                    value, weight = _mean(name, metric, output, own.targets, part)
                    sums[name] += value * weight
                    counts[name] += weight
    finally:
        if was_training:
            model.train()
    if rows == 0:
        raise TaskError(
            "the data gave no batch",
            where=f"{part} data",
            expected="one batch at least in every pass",
            do="look at drop_last and the sampler; an iterator is used up after one pass",
        )
    total_loss, *totals = devices.team.sums([total_loss, *sums.values(), *counts.values()])
    means = [sum_ / count for sum_, count in zip(totals, totals[len(sums) :], strict=False)]
    found = {f"{part}/loss": total_loss / rows}
    return found | {f"{part}/{name}": mean for name, mean in zip(metrics, means, strict=True)}


def _mean(
    name: str, metric: Metric, output: Tensor, targets: Tensor, part: str
) -> tuple[float, int]:
    """Return the mean of a metric over a batch, and what it counts."""
    values = torch.as_tensor(metric(output, targets))
    if values.numel() == 0:
        raise ShapeError(
            f"metric {name!r} returned nothing",
            where=f"{part} data",
            got=f"output {tuple(output.shape)}, target {tuple(targets.shape)}",
        )
    # A metric that returns one number for the batch counts by the rows.
    weight = values.numel() if values.ndim else len(targets)
    return float(values.double().mean()), weight
