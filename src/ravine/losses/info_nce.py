"""InfoNCE with the other samples of the batch as negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.losses.bounds import POSITIVE_OR_TENSOR, SWITCH
from ravine.losses.cross_entropy import cross_entropy
from ravine.losses.samples import sample_loss
from ravine.losses.vectors import check_batch, direction


@sample_loss(
    "InfoNCE",
    check=check_batch,
    bounds={"temperature": POSITIVE_OR_TENSOR, "symmetric": SWITCH, "cosine": SWITCH},
)
def info_nce(
    input: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = False,
    cosine: bool = True,
) -> Tensor:
    """InfoNCE: each input shall find its own target among those of the whole batch.

    Equation:
        s_ij   = <u_i, v_j> / temperature    of inputs u and targets v, divided by their lengths
        loss_i = -log softmax_j(s_ij)_i      with ``symmetric`` the mean of this and the same of s_ji

    Args:
        input: vectors (N, D), any float type.
        target: vectors (N, D); row i belongs to row i of the input, the others are its negatives.
        temperature: finite, > 0; a tensor of one number to learn it.
        symmetric: whether targets look for their inputs as well (CLIP).
        cosine: whether vectors are divided by their lengths. The zero vector is 0 then, with slope 0.
        weight: one weight for each sample (N,), >= 0; 0 leaves the sample out, as a negative too.
            Other weights change nothing about negatives.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean". Negatives come from one call, so
            the parts of an accumulated batch are another loss than the whole.

    Returns:
        One number, or (N,) with reduction="none"; float32 for float16 and bfloat16 input, with the
        products in float32 under autocast too.

    Raises:
        ShapeError: shapes that are not the same (N, D). ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import info_nce
        >>> x = torch.eye(3)
        >>> round(info_nce(x, x, temperature=0.5).item(), 6)
        0.239545

    Differs from: CLIP's loss is this with ``symmetric=True``, and has the logarithm of 1 / temperature
    as its parameter.

    A matrix product, and `cross_entropy` of its N x N scores.

    Source: van den Oord et al. 2018, equation 4; Radford et al. 2021 for the symmetric form.
    """
    if cosine:
        input, target = direction(input), direction(target)
    scores = input @ target.T / temperature
    own = torch.arange(len(scores), device=scores.device)
    found = cross_entropy(_among(scores, counts, own), own, reduction="none")
    if symmetric:
        back = cross_entropy(_among(scores.T, counts, own), own, reduction="none")
        found = (found + back) / 2
    return found


def _among(scores: Tensor, counts: Tensor | None, own: Tensor) -> Tensor:
    """Return the scores without the negatives that do not count."""
    if counts is None:
        return scores
    return torch.where(counts | (own == own[:, None]), scores, -torch.inf)
