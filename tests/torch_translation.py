"""Torch's loss calls in our words: what each keyword becomes, or why a call has no counterpart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ravine import losses

Call = Callable[[Tensor], Tensor]


class Apart(Exception):  # noqa: N818 (a fact, not a failure)
    """A call that has no counterpart here, with the reason."""


def settled(options: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return torch's options without those that are not given; none is left out unseen."""
    given = {name: value for name, value in options.items() if value is not None}
    for old in ("size_average", "reduce"):
        if given.pop(old, None) is not None:
            raise Apart("size_average and reduce, which torch has given up")
    unknown = given.keys() - set(known) - {"reduction"}
    assert not unknown, f"an option that nobody has translated: {unknown}"
    return given


def same_shape(input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise Apart("input and target are broadcast, which is an error here")


def elementwise(name: str, known: tuple[str, ...] = ()) -> Callable[..., Call]:
    def translate(input: Tensor, target: Tensor, **options: Any) -> Call:
        same_shape(input, target)
        given = settled(options, (*known, "weight"))
        weight = given.pop("weight", None)
        if weight is not None:
            # torch's mean divides by how many there are, ours by the weights' sum.
            given["weight"] = weight.expand(input.shape)
            if given.get("reduction", "mean") == "mean":
                given["normalizer"] = input.numel()
        return lambda z: losses.FUNCTIONS[name](z, target, **given)

    return translate


def bce(input: Tensor, target: Tensor, **options: Any) -> Call:
    if options.pop("pos_weight", None) is not None:
        raise Apart("pos_weight: a sample weight of 1 + (pos_weight - 1) y for y = 0 and 1 only")
    return elementwise("binary_cross_entropy")(input, target, **options)


def cross_entropy(input: Tensor, target: Tensor, **options: Any) -> Call:
    given = settled(options, ("weight", "ignore_index", "label_smoothing"))
    if input.numel() == 0:
        raise Apart("the mean of an empty batch is NaN in torch, an error here")
    soft = target.is_floating_point()
    mean = given.get("reduction", "mean") == "mean"
    if mean and not soft and (target == given.get("ignore_index", -100)).all():
        raise Apart("the mean of ignored samples only is NaN in torch, 0 here")
    if "weight" in given:
        given["class_weight"] = given.pop("weight")
    dim = 0 if input.ndim == 1 else 1
    return lambda z: losses.cross_entropy(z, target, dim=dim, **given)


def kl_divergence(input: Tensor, target: Tensor, **options: Any) -> Call:
    if target.isnan().any():
        raise Apart("targets that are NaN are an error here")
    if options.get("reduction") == "batchmean":
        options = {**options, "reduction": "mean"}
        count = input.shape[0] if input.ndim else 1
        same_shape(input, target)
        given = settled(options, ("log_target",))
        return lambda z: losses.FUNCTIONS["kl_divergence"](z, target, normalizer=count, **given)
    return elementwise("kl_divergence", ("log_target",))(input, target, **options)


TRANSLATED: dict[str, tuple[str, Callable[..., Call]]] = {
    "MSELoss": ("mse", elementwise("mse")),
    "L1Loss": ("mae", elementwise("mae")),
    "HuberLoss": ("huber", elementwise("huber", ("delta",))),
    "SmoothL1Loss": ("smooth_l1", elementwise("smooth_l1", ("beta",))),
    "BCEWithLogitsLoss": ("binary_cross_entropy", bce),
    "CrossEntropyLoss": ("cross_entropy", cross_entropy),
    "KLDivLoss": ("kl_divergence", kl_divergence),
}
"""torch's class: our loss, and how its calls are written here."""

OPERATORS = {
    "mse_loss": "MSELoss",
    "l1_loss": "L1Loss",
    "huber_loss": "HuberLoss",
    "smooth_l1_loss": "SmoothL1Loss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss",
    "kl_div": "KLDivLoss",
}
"""torch's function: its class."""

NOT_SHARED: dict[str, str] = {
    "BCELoss": "takes probabilities and clamps their log",
    "NLLLoss": "takes log probabilities",
    "NLLLossNd": "takes log probabilities",
    "LinearCrossEntropyLoss": "has tests of its own beside linear_cross_entropy",
    "TripletMarginLoss": "three inputs; has tests of its own",
    "TripletMarginWithDistanceLoss": "a distance given as a function",
    "GaussianNLLLoss": "two inputs; has tests of its own",
    "PoissonNLLLoss": "has tests of its own, with eps= and full=",
    "MultiMarginLoss": "has tests of its own",
    "CTCLoss": "no such loss here",
    "CosineEmbeddingLoss": "no such loss here",
    "HingeEmbeddingLoss": "no such loss here",
    "MarginRankingLoss": "no such loss here",
    "MultiLabelMarginLoss": "no such loss here",
    "MultiLabelSoftMarginLoss": "no such loss here",
    "SoftMarginLoss": "no such loss here",
}
"""torch's losses that are compared nowhere here, or elsewhere, and why."""


def without_gradient(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
