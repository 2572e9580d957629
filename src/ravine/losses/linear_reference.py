"""Cross-entropy of a linear head in plain PyTorch, with all logits: differentiable as often as one likes."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.losses.fused_rows import plain_losses
from ravine.losses.linear_chunks import Terms
from ravine.losses.row_formula import RowBatch


def reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    factor: Tensor | None,
    terms: Terms,
) -> tuple[Tensor, Tensor]:
    """Return loss and logsumexp of each row; both are 0 for rows that do not count."""
    number = number_type(hidden.dtype)
    counts = torch.ones_like(hidden[:, 0], dtype=torch.bool)
    if target.ndim == 1:
        counts = counts & (target != terms.options["ignore_index"])
    present = counts
    if factor is not None:
        counts = counts & (factor != 0)
        # The slope by a weight of 0 is the loss; a row with NaN has none.
        present = present & ((factor != 0) | hidden.isfinite().all(1))
    hidden = torch.where(present[:, None], hidden, 0.0).to(number)
    logits = torch.nn.functional.linear(
        hidden, weight.to(number), None if bias is None else bias.to(number)
    )
    if terms.soft_cap is not None:
        logits = terms.soft_cap * torch.tanh(logits / terms.soft_cap)
    if target.ndim == 2:
        target = target.to(number)
    losses = plain_losses(terms.rows, RowBatch(logits, target, factor, terms.options))
    lse = logits.logsumexp(1)
    if terms.z_loss:
        square = terms.z_loss * lse * lse
        losses = losses + torch.where(present, square if factor is None else factor * square, 0.0)
    return losses, torch.where(counts, lse, 0.0)
