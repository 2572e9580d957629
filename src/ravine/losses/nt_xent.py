"""NT-Xent, the loss of SimCLR."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.losses.bounds import POSITIVE_OR_TENSOR
from ravine.losses.cross_entropy import cross_entropy
from ravine.losses.samples import sample_loss
from ravine.losses.vectors import check_batch, direction


@sample_loss("NTXent", check=check_batch, bounds={"temperature": POSITIVE_OR_TENSOR})
def nt_xent(
    input: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    temperature: float | Tensor = 0.5,
) -> Tensor:
    """NT-Xent: each of the 2N views shall find the other view of its sample among the rest.

    Equation:
        z      = the rows of input and target, each divided by its length: 2N views
        s_ij   = <z_i, z_j> / temperature
        l_i    = -log softmax over j != i (s_ij), at the other view of the sample
        loss   = (l of the one view + l of the other) / 2    of each sample

    Args:
        input: the first views (N, D), any float type.
        target: the second views (N, D); row i is of the same sample as row i of the input.
        temperature: finite, > 0; a tensor of one number to learn it.
        weight: one weight for each sample (N,), >= 0; 0 leaves both its views out, as negatives too.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean". Negatives come from one call, so
            the parts of an accumulated batch are another loss than the whole.

    Returns:
        One number, or (N,) with reduction="none"; float32 for float16 and bfloat16 input, with the
        products in float32 under autocast too. A zero vector has the slope 0.

    Raises:
        ShapeError: shapes that are not the same (N, D). ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import nt_xent
        >>> x = torch.eye(2)
        >>> round(nt_xent(x, x, temperature=0.5).item(), 6)
        0.239545

    Differs from: `info_nce`, where views of the same side are no negatives.

    A matrix product, and `cross_entropy` of its 2N x 2N scores.

    Source: Chen et al. 2020, equation 1 and algorithm 1.
    """
    views = direction(torch.cat([input, target]))
    scores = views @ views.T / temperature
    place = torch.arange(len(views), device=views.device)
    other = place.roll(len(input))
    rival = place != place[:, None]
    if counts is not None:
        rival = rival & (torch.cat([counts, counts]) | (place == other[:, None]))
    scores = torch.where(rival, scores, -torch.inf)
    first, second = cross_entropy(scores, other, reduction="none").chunk(2)
    return (first + second) / 2
