"""Changes that treat nothing: what a remedy has to be better than.

None of them is the remedy of any finding, so that the draw cannot hit on what is right: a control
drawn from the other findings' remedies may mend the same cause, and would then hide that cause.
"""

from __future__ import annotations

import random

import torch
from torch import nn

from ravine.diagnose.program import Change
from ravine.diagnose.treatments.steps import times_lr

ORDER = Change("take the rows in another order", order=1_000_003)


@torch.no_grad()
def _shuffled(model: nn.Module) -> None:
    for weight in model.parameters():
        if weight.requires_grad:
            flat = weight.flatten()
            weight.copy_(flat[torch.randperm(len(flat), device=flat.device)].view_as(weight))


SHUFFLED = Change("begin at the same weights in other places", model=_shuffled)

RATES = times_lr(0.5), times_lr(2.0)


def control_of(remedy: Change, name: str, seed: int) -> Change:
    """Draw a change that treats nothing; the draw follows from the finding's name and the seed.

    The learning rate by a factor of two is one only for remedies that leave the steps alone: for
    the others it is half a remedy. A change of layers or data that does no better than twice the
    learning rate has not shown that layers or data were the cause.

    Args:
        remedy: the one that the control stands beside.
        name: of the finding.
        seed: of the program.
    """
    pool = (ORDER, SHUFFLED) if remedy.steps else (ORDER, SHUFFLED, *RATES)
    return random.Random(f"{name} {seed}").choice(pool)
