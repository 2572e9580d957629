# mypy: disable-error-code="no-untyped-call"
"""Cross-entropy of a linear head, without its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.engine.capture import is_capturing
from ravine.engine.element_types import number_type
from ravine.errors import unknown_option
from ravine.losses.arguments import (
    check_not_empty,
    check_reduction,
    check_weight,
    is_at_hand,
    is_checked,
    needs_gradient,
    plain_only,
    readable,
    refuse_capture,
)
from ravine.losses.bounds import NOT_NEGATIVE, POSITIVE, Bound, check_bounds
from ravine.losses.cross_entropy import CrossEntropyRows
from ravine.losses.fused_rows import without_strangers
from ravine.losses.linear_arguments import check_head, check_head_target
from ravine.losses.linear_autograd import Call, loss_of
from ravine.losses.linear_chunks import Batch, Terms
from ravine.losses.linear_reference import reference
from ravine.losses.reduction import divisor_of, reciprocal, reduced
from ravine.losses.row_formula import RowBatch

NAME = "linear_cross_entropy"
ROWS = CrossEntropyRows()
BOUNDS: dict[str, Bound] = {
    "z_loss": NOT_NEGATIVE,
    "soft_cap": (lambda x: x is None or POSITIVE[0](x), "a finite number > 0, or None"),
}


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    class_weight: Tensor | list[float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    return_lse: bool = False,
    check: str = "on",
) -> Any:
    """Cross-entropy of the logits hidden weight^T + bias, which are never all in memory.

    Equation:
        x    = hidden weight^T + bias;  x = c tanh(x / c)                       with soft_cap c
        loss = -sum_k y_k log softmax(x)_k + z (log sum_k exp x_k)^2            with z_loss z
        y    = (1 - s) target + s / K                  with label smoothing s over K classes

    Args:
        hidden: (..., width), float32, float64, bfloat16 or float16.
        weight: (K, width), of the type of hidden; may be an embedding's.
        target: classes (...), integers in 0..K-1 or ``ignore_index``; or probabilities (..., K).
        bias: (K,), of the type of hidden, or None; -inf rules a class out.
        class_weight: (K,) weights that multiply every class's term, >= 0, or None.
        label_smoothing: s, in [0, 1].
        ignore_index: the class of samples that are left out; their logits are not computed.
        z_loss: z, >= 0; not multiplied with class weights.
        soft_cap: c, > 0, or None.
        sample_weight: one weight for each sample (...), >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none"; "none" computes the logits once more on the way back.
        normalizer: what the sum is divided by instead, with "mean".
        return_lse: whether log sum_k exp x_k is returned too, 0 for samples left out.
        check: "off" as in `cross_entropy`.

    Returns:
        The loss as of `cross_entropy`: one number, or (...) with reduction="none"; float32 for
        float16 and bfloat16. With ``return_lse`` a pair of it and (...), both differentiable.
        Products and sums are float32 for half precision too, also that of the gradient of weight,
        which is rounded at its end. Besides the gradients, about 3/64 of the logits is in memory, at
        least those of 64 samples. Half precision on a GPU, from torch 2.10 on, is multiplied as it is,
        on tensor cores, and summed in float32: slopes by logits are rounded once before, in a scale
        that float16 can hold, the gradients once at their end, with all that arrives on the way
        back. Besides the gradients there are 32 MiB then, and the gradient of hidden in float32.
        Second derivatives, `torch.func`, forward mode, `torch.compile`, CUDA graphs and gradients by
        anything but hidden, weight and bias take plain PyTorch, with all logits.

    Raises:
        TargetError: a class out of range, with its position. ShapeError: shapes that do not fit, or an
            empty batch. ArgumentError, ArgumentTypeError: an option out of its bounds, a wrong type.

    Example:
        >>> import torch
        >>> from ravine.losses import linear_cross_entropy
        >>> embedding = torch.nn.Embedding(50, 8)
        >>> hidden, target = torch.randn(2, 3, 8), torch.randint(50, (2, 3))
        >>> linear_cross_entropy(hidden, embedding.weight, target, z_loss=1e-4).backward()
        >>> embedding.weight.grad.shape
        torch.Size([50, 8])

    Differs from: ``weight`` is the head's matrix, as in ``F.linear``; sample weights are
    ``sample_weight``. torch's ``F.linear_cross_entropy`` takes one batch dimension, computes ignored
    rows, gives NaN if all are ignored, and holds all logits for label smoothing and probabilities.

    Source: Wijmans et al. 2024 and Hsu et al. 2024 for chunks; Chowdhery et al. 2022 for z-loss; Gemma
    Team 2024 for the soft cap.
    """
    terms, values = _terms(class_weight, label_smoothing, ignore_index, z_loss, soft_cap)
    checked = is_checked(NAME, check)
    if checked:
        refuse_capture(NAME, hidden)
    check_reduction(NAME, reduction, normalizer, checked)
    hidden, weight, bias = check_head(hidden, weight, bias)
    soft = check_head_target(hidden, weight, target)
    shape, classes = hidden.shape[:-1], weight.shape[0]
    check_not_empty(NAME, shape.numel(), reduction, normalizer)
    number = number_type(hidden.dtype)
    factor = None
    if sample_weight is not None:
        factor = check_weight(NAME, sample_weight, shape, hidden, checked).reshape(-1).to(number)
    rows = hidden.reshape(-1, hidden.shape[-1])
    target = target.reshape(-1, classes) if soft else target.reshape(-1).to(torch.int64)
    options = ROWS.settle(weight.t(), values, checked)
    terms = Terms(ROWS, options, terms.soft_cap, terms.z_loss)
    # Of the scores only the number of classes is looked at: the weight stands in for them.
    counted = RowBatch(weight.t(), target, factor, options)
    if checked and readable(rows, target):
        ROWS.check_target(counted._replace(target=target.detach()))
    elif not soft:
        counted = without_strangers(counted)
        target, factor = counted.target, counted.factor
    if (
        plain_only(rows, weight, bias, target, factor)
        or needs_gradient(target, factor, normalizer, options["class_weight"])
        or is_capturing(hidden.device)  # the host has to know which rows count
    ):
        lse: Tensor | None
        losses, lse = reference(rows, weight, bias, target, factor, terms)
        found = reduced(losses, reduction, normalizer, lambda: ROWS.amount(counted))
    else:
        scale: float | Tensor = 1.0
        if reduction == "mean":
            if normalizer is None:
                amount = ROWS.amount(counted)
                scale = reciprocal(float(amount) if is_at_hand(amount) else amount)
            else:
                scale = 1.0 / divisor_of(normalizer, hidden)
        enabled = torch.is_grad_enabled()
        wanted = (
            enabled and rows.requires_grad,
            enabled and weight.requires_grad,
            enabled and bias is not None and bias.requires_grad,
        )
        batch = Batch(target, factor, _kept(target, factor, ignore_index))
        call = Call(batch, terms, scale, reduction != "none", return_lse, wanted)
        found, lse = loss_of(rows, weight, bias, call)
    if reduction == "none":
        found = found.reshape(shape)
    return found if lse is None or not return_lse else (found, lse.reshape(shape))


def _terms(
    class_weight: Any, label_smoothing: Any, ignore_index: Any, z_loss: Any, soft_cap: Any
) -> tuple[Terms, dict[str, Any]]:
    """Return the options, checked against their bounds."""
    values = {
        "class_weight": class_weight,
        "label_smoothing": label_smoothing,
        "ignore_index": ignore_index,
    }
    check_bounds(NAME, {**values, "dim": -1}, ROWS.bounds)
    check_bounds(NAME, {"z_loss": z_loss, "soft_cap": soft_cap}, BOUNDS)
    return Terms(ROWS, values, soft_cap, z_loss), values


def _kept(target: Tensor, factor: Tensor | None, ignore_index: int) -> Tensor | None:
    """Return the numbers of the rows that count, or None if all do."""
    counts = target != ignore_index if target.ndim == 1 else None
    if factor is not None:
        counts = factor != 0 if counts is None else counts & (factor != 0)
    if counts is None or bool(counts.all()):
        return None
    return counts.nonzero()[:, 0]


class LinearCrossEntropy(torch.nn.Module):
    """`linear_cross_entropy` with its options fixed; called with (hidden, weight, target, bias).

    It owns no weight, so that the head may be an embedding's.

    Example:
        >>> LinearCrossEntropy(z_loss=1e-4)
        linear_cross_entropy(z_loss=0.0001)
    """

    OPTIONS = ("class_weight", "label_smoothing", "ignore_index", "z_loss", "soft_cap")

    def __init__(
        self,
        *,
        reduction: str = "mean",
        return_lse: bool = False,
        check: str = "on",
        **options: Any,
    ) -> None:
        super().__init__()
        for option in options:
            if option not in self.OPTIONS:
                raise unknown_option(
                    "LinearCrossEntropy",
                    option,
                    [*self.OPTIONS, "reduction", "return_lse", "check"],
                )
        check_reduction(NAME, reduction, None)
        is_checked(NAME, check)
        defaults = (None, 0.0, -100, 0.0, None)
        _terms(*(options.get(o, d) for o, d in zip(self.OPTIONS, defaults, strict=True)))
        self.options = options
        self.reduction = reduction
        self.return_lse = return_lse
        self.check = check

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Any:
        """Return the loss; see `linear_cross_entropy`."""
        return linear_cross_entropy(
            hidden,
            weight,
            target,
            bias,
            sample_weight=sample_weight,
            normalizer=normalizer,
            reduction=self.reduction,
            return_lse=self.return_lse,
            check=self.check,
            **self.options,
        )

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self.options.items()]
        if self.reduction != "mean":
            shown.append(f"reduction={self.reduction!r}")
        if self.return_lse:
            shown.append("return_lse=True")
        if self.check != "on":
            shown.append(f"check={self.check!r}")
        return f"{NAME}({', '.join(shown)})"
