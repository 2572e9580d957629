"""Whether training and evaluation mode give the same answers. Cost: two passes over some batches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import at_end
from ravine.diagnose.quality import quality

BATCHES = 16
NORMS = (nn.modules.batchnorm._NormBase,)


@dataclass(frozen=True)
class Modes:
    """The trained model on the same batches in both modes.

    Attributes:
        train, evaluation: quality in training mode, where batch statistics are those of the batch, and
            in evaluation mode; dropout is off in both.
        norms: the names of the layers with running statistics.
    """

    train: float
    evaluation: float
    norms: tuple[str, ...]

    @property
    def lost(self) -> float:
        """The quality that is lost by switching to evaluation mode."""
        return self.train - self.evaluation


def modes(evidence: Evidence) -> Modes:
    """Compare the modes at the end of the run, without dropout, whose noise is meant to differ."""
    fresh = at_end(evidence)
    norms = tuple(
        name
        for name, module in fresh.model.named_modules()
        if isinstance(module, NORMS) and module.track_running_stats
    )
    told = []
    targets = []
    batches = list(islice(fresh.train.epoch(1), BATCHES))
    for training in (True, False):
        fresh.model.eval()
        for module in fresh.model.modules():
            if isinstance(module, NORMS):
                module.train(training)
                module.momentum = 0.0  # the running statistics stay what the run has left
        with torch.no_grad():
            told.append(torch.cat([fresh.model(inputs) for inputs, _ in batches]))
        targets = [y for _, y in batches]
    wanted = torch.cat(targets)
    return Modes(quality(told[0], wanted), quality(told[1], wanted), norms)
