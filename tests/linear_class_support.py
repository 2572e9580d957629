"""Chunks of classes without a GPU: products widened to float32, and what may be lost by rounding slopes."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from linear_cases import WIDE, Case, oracle
from torch import Tensor

from ravine.losses import linear_class_memory, linear_products, linear_seen
from ravine.losses.fused import HALVES


def extent(t: Tensor) -> tuple[int, int]:
    """Return the first address of a tensor and the one after its last."""
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.itemsize


def put(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Overwrite a matrix with a product of half-precision ones, as `linear_products.put`."""
    for given in (left, right):  # a GPU reads it while it writes
        (first, last), (start, stop) = extent(out), extent(given)
        assert last <= start or stop <= first
    assert left.dtype is right.dtype and left.dtype in HALVES and out.dtype is torch.float32
    out.copy_(left.float() @ right.float())


def add(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add such a product."""
    before = out.clone()
    put(out, left, right)
    out.add_(before)


@pytest.fixture
def by_classes():
    """Take the CPU for what multiplies half-precision matrices into float32."""
    with (
        mock.patch.object(linear_products, "serve", lambda t: t.dtype in HALVES),
        mock.patch.object(linear_products, "put", put),
        mock.patch.object(linear_products, "add", add),
    ):
        yield


@pytest.fixture
def few_classes(by_classes):
    """Make a few rows of a few classes into many chunks and blocks."""
    with (
        mock.patch.object(linear_class_memory, "MOST_BYTES", 0),
        mock.patch.object(linear_class_memory, "TILE", 4),
        mock.patch.object(linear_class_memory, "LARGE", 8),
        mock.patch.object(linear_seen, "BLOCK", 14),
    ):
        yield


def halved(case: Case, kind: torch.dtype) -> Case:
    """Return a case whose numbers are half-precision ones, in float64."""
    tensors = (case.hidden, case.weight, case.bias)
    hidden, weight, bias = (None if t is None else t.to(kind).to(WIDE) for t in tensors)
    assert hidden is not None and weight is not None
    return Case(hidden, weight, case.target, bias, dict(case.options))


def exact(case: Case, back: Tensor, back_lse: Tensor | None = None) -> tuple[list[Tensor], ...]:
    """Return value and logsumexp, the gradients, and how far half-precision slopes may be from each.

    The last are sums of |slope| |factor|, the products' with all signs dropped: what an error of each
    slope relative to itself comes to at most.
    """
    leaves = case.leaves()
    hidden, weight, bias = leaves
    value, lse = oracle(hidden, weight, case.target, bias, **case.options)
    outputs = [value] if back_lse is None else [value, lse]
    arriving = [back] if back_lse is None else [back, back_lse]
    given = [t for t in leaves if t is not None]
    gradients = torch.autograd.grad(outputs, given, arriving)
    logits = torch.nn.functional.linear(hidden, weight, bias).detach().requires_grad_()
    eye = torch.eye(len(weight), dtype=WIDE)
    again, lse_again = oracle(logits, eye, case.target, None, **case.options)
    outputs = [again] if back_lse is None else [again, lse_again]
    (slopes,) = torch.autograd.grad(outputs, logits, arriving)
    slopes = slopes.flatten(0, -2).abs()
    rows = hidden.detach().reshape(-1, hidden.shape[-1]).abs()
    sums = [(slopes @ weight.detach().abs()).reshape(hidden.shape), slopes.T @ rows, slopes.sum(0)]
    return [value.detach(), lse.detach()], list(gradients), sums[: len(given)]


def assert_rounded(found: Tensor, want: Tensor, sums: Tensor, largest: float) -> None:
    """Hold a gradient to one rounding of each slope, one of itself, and float32 sums.

    ``largest``: what the slopes of one row come to at most, before they are summed over rows.
    """
    half = torch.finfo(found.dtype).eps / 2
    atol = torch.finfo(found.dtype).smallest_normal * 2 * half  # half of the smallest number
    error = (found.to(WIDE) - want).abs()
    allowed = 1.01 * half * (sums + want.abs()) + 3e-6 * sums + atol + 1e-9 * largest
    assert bool((error <= allowed).all()), float((error / allowed).max())
