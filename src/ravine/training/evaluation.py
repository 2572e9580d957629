"""Loss and metrics over data that is only looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ravine.errors import ShapeError
from ravine.tasks.checks import Data
from ravine.tasks.metrics import Metric
from ravine.training.batches import evaluation_batches


def evaluate(
    model: nn.Module,
    data: Data,
    loss: Any,
    metrics: Mapping[str, Metric],
    *,
    part: str,
    device: torch.device,
) -> dict[str, float]:
    """Return ``part/loss`` and the metrics, with the model in evaluation mode.

    The loss of a batch counts by its rows, a metric by the values that it returns.
    """
    was_training = model.training
    model.eval()
    rows, total_loss = 0, 0.0
    sums = dict.fromkeys(metrics, 0.0)
    counts = dict.fromkeys(metrics, 0)
    try:
        with torch.inference_mode():
            for inputs, targets in evaluation_batches(data, device):
                output = model(inputs)
                rows += len(targets)
                total_loss += float(loss(output, targets)) * len(targets)
                for name, metric in metrics.items():
                    values = metric(output, targets)
                    if values.numel() == 0:
                        raise ShapeError(
                            f"metric {name!r} returned nothing",
                            where=f"{part} data",
                            got=f"output {tuple(output.shape)}, target {tuple(targets.shape)}",
                        )
                    # A metric that returns one number for the batch counts by the rows.
                    weight = values.numel() if values.ndim else len(targets)
                    sums[name] += float(values.double().mean()) * weight
                    counts[name] += weight
    finally:
        model.train(was_training)
    found = {f"{part}/loss": total_loss / max(rows, 1)}
    return found | {f"{part}/{name}": sums[name] / max(counts[name], 1) for name in metrics}
