"""The rows of a linear head and its cross-entropy, a chunk of classes at a time: for half precision on a GPU.

`linear_chunks` takes some rows with all their classes, and adds each chunk to the gradient of the weight:
in half precision that has to wait in float32, twice the memory of the gradient that is asked for. Some
classes with all their rows are a part of that gradient from the first to the last number, which
is rounded when its one product is done. The price is that logits are computed twice, as the slopes
need the largest logit and the sum over all classes.

* All products are of half-precision matrices, added up in float32 (`linear_products`). Slopes are
  therefore rounded to half precision, once, and nothing else is before the end.
* The second visit is on the way back, when the number that arrives is there: slopes and results have all
  their factors before they are rounded. The slopes are multiplied such that the largest that is
  possible is `LARGEST`; down to 4e-9 of it float16 rounds a slope as well as that one.

Measured on the CPU with the products widened, 2048 rows of width 256 and 16384 classes: the error of both
gradients, in norm, is 2.3e-3 of them in bfloat16 and 2.9e-4 in float16, 1.4 times what one rounding of
the exact ones costs; F.linear and F.cross_entropy in half precision are off by 1.8e-2 and 2.4e-3.

Bytes besides gradients and inputs, of ``rows`` that count, with C classes in a chunk: forwards
4 C rows of logits, which their slopes overwrite on the way back; there also 4 C width for the part of the
gradient of weight and 4 width rows for the gradient of hidden, both in float32. The first two lie where the
gradient of weight will be, or are 32 MiB at most (`linear_class_memory`). The third is there with half of
its size again at the end, as the gradient of hidden, and then the first two are not. Where rows
are left out, the others are copied, 2 width rows. Forwards the logits of a chunk have memory of their own,
at most a quarter of the bytes of the gradient that comes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ravine.losses import linear_products
from ravine.losses.linear_chunks import Batch, Terms
from ravine.losses.linear_class_memory import Group, groups, memory
from ravine.losses.linear_seen import finished, is_plain, look, nothing_seen, slopes_of, turn
from ravine.losses.linear_state import Chunk, Known, Slopes

LARGEST = 2.0**14
"""The bound of the slopes that are rounded, a quarter of what float16 can hold."""

AT_ONCE = 4096
"""Rows whose gradient is rounded at once, where it is to be put apart."""


@dataclass(frozen=True)
class Head:
    """A call: what `linear_chunks.sweep` takes."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    batch: Batch
    terms: Terms
    wanted: tuple[bool, bool, bool]
    """Whether the gradient by hidden, weight and bias is, now or later."""

    def counted(self, tensor: Tensor) -> Tensor:
        """Return the rows of a tensor that count."""
        return tensor if self.batch.kept is None else tensor[self.batch.kept]

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers of the rows that count as float32 of all rows, 0 of the others."""
        if self.batch.kept is None:
            return numbers.float()
        all_rows = numbers.new_zeros(len(self.hidden), dtype=torch.float32)
        return all_rows.index_copy_(0, self.batch.kept, numbers.float())

    def target(self) -> Tensor | None:
        """Return the classes of the rows that count, or None for probabilities."""
        return self.counted(self.batch.target) if self.batch.target.ndim == 1 else None

    def chunks(
        self, rows: Tensor, target: Tensor | None, by_weight: Tensor | None = None
    ) -> Iterator[tuple[Chunk, Tensor, Tensor | None]]:
        """Return each chunk, where the slopes by its logits may be written, and by its weights.

        Args:
            rows: those of hidden that count.
            target: their classes, or None.
            by_weight: the gradient of weight, where it is there to be filled in.
        """
        classes = len(self.weight)
        bias = None if self.bias is None else self.bias.float()
        of_class = self.terms.options["class_weight"]
        space = None
        for group in self.groups(len(rows)):
            # Forwards that of the first chunks, which are the largest, serves all.
            if space is None or by_weight is not None:
                space = memory(group, rows, by_weight)
            count = len(rows) * group.size
            logits = space[:count].view(len(rows), group.size)
            slopes = logits.view(rows.dtype)  # rows of twice as many numbers
            part = None if by_weight is None else space[count:].view(group.size, rows.shape[1])
            for start in range(group.first, group.last, group.size):
                place = slice(start, min(start + group.size, group.last))
                size = place.stop - start
                linear_products.put(logits[:, :size], rows, self.weight[place].t())
                aim = target if target is not None else self._probabilities(place)
                chunk = Chunk(start, classes, logits[:, :size], aim, bias, of_class)
                yield chunk, slopes[:, :size], None if part is None else part[:size]

    def groups(self, rows: int) -> list[Group]:
        """Return how the classes are cut into chunks, for so many rows that count."""
        classes, width = self.weight.shape
        lends = self.wanted[1] and self.weight.is_contiguous()
        return groups(rows, width, classes, lends) if rows else []

    def _probabilities(self, place: slice) -> Tensor:
        found = self.counted(self.batch.target[:, place]).float()
        return found if found.stride(1) == 1 else found.contiguous()


def visit(head: Head) -> Known:
    """Return what is known of the rows that count, after a visit to all classes."""
    rows, target = head.counted(head.hidden), head.target()
    seen = nothing_seen(rows, target, head.terms)
    for chunk, _, _ in head.chunks(rows, target):
        look(chunk, seen, head.terms)
    return finished(seen, is_plain(head.terms, target))


def results(head: Head, known: Known) -> tuple[Tensor, Tensor]:
    """Return the losses and logsumexp of all rows."""
    losses = known.losses
    if head.terms.z_loss:
        losses = losses + head.terms.z_loss * known.lse.square()
    if head.batch.factor is not None:
        losses = losses * head.counted(head.batch.factor)
    return head.spread(losses), head.spread(known.lse)


def arrived(head: Head, known: Known, losses: Tensor, lse: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what makes slopes of the rows that count by their logits, of slopes by `results`.

    ``losses`` and ``lse`` are float64, of all rows or one number for all; the first of the pair is for the
    loss of a row without its sample weight and z-loss, the second for its logsumexp.
    """
    by_loss = head.counted(losses) if losses.ndim else losses.expand_as(known.lse)
    if head.batch.factor is not None:
        by_loss = by_loss * head.counted(head.batch.factor)
    by_lse = torch.zeros_like(by_loss) if lse is None else head.counted(lse)
    if head.terms.z_loss:  # logsumexp may be infinite
        by_lse = by_lse + 2 * head.terms.z_loss * known.lse * by_loss
    return by_loss, by_lse


def gradients(head: Head, known: Known, by_loss: Tensor, by_lse: Tensor) -> list[Tensor | None]:
    """Return the gradients by hidden, weight and bias that are wanted, in their own type.

    Args:
        head: the call.
        known: what `visit` has returned.
        by_loss, by_lse: what `arrived` has returned.
    """
    wanted = head.wanted
    rows = head.counted(head.hidden)
    new = torch.empty_like if len(rows) else torch.zeros_like
    by_weight = new(head.weight) if wanted[1] else None
    by_bias = new(head.bias) if head.bias is not None and wanted[2] else None
    by_rows = rows.new_zeros(rows.shape, dtype=torch.float32) if wanted[0] else None
    slopes, unit = _bounded(known, by_loss, by_lse)
    _multiply(head, rows, slopes, unit, (by_rows, by_weight, by_bias))
    del rows  # which may be a copy
    by_hidden = None
    if by_rows is not None:
        by_hidden = _rounded(by_rows.mul_(unit), head)
    return [by_hidden, by_weight, by_bias]


def _rounded(by_rows: Tensor, head: Head) -> Tensor:
    """Return the gradient by hidden of that by the rows that count."""
    hidden, kept = head.hidden, head.batch.kept
    if kept is None:
        return by_rows.to(hidden.dtype)
    by_hidden = torch.zeros_like(hidden)
    for start in range(0, len(kept), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        by_hidden[kept[part]] = by_rows[part].to(hidden.dtype)
    return by_hidden


def _bounded(known: Known, by_loss: Tensor, by_lse: Tensor) -> tuple[Slopes, Tensor]:
    """Return slopes of at most `LARGEST`, and what results of them are multiplied with at the end.

    The host does not wait for either. A row whose factor is NaN or infinite spoils no other.
    """
    bound = by_loss.abs() * known.total + by_lse.abs()
    largest = torch.cat([bound, bound.new_zeros(1)]).nan_to_num(0.0, 0.0, 0.0).amax()
    unit = torch.where(largest > 0, largest, 1.0) / LARGEST
    return slopes_of(known, by_loss / unit, by_lse / unit), unit.float()


def _multiply(
    head: Head,
    rows: Tensor,
    slopes: Slopes,
    unit: Tensor,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """Fill in the gradients by weight and bias; add up that by the rows, without ``unit``."""
    by_rows, by_weight, by_bias = gradients
    for chunk, into, part in head.chunks(rows, head.target(), by_weight):
        turn(chunk, slopes, head.terms, into)
        if by_bias is not None:
            by_bias[chunk.place] = into.sum(0, dtype=torch.float32).mul_(unit)
        if by_rows is not None:
            linear_products.add(by_rows, into, head.weight[chunk.place])
        if by_weight is not None and part is not None:
            linear_products.put(part, into.t(), rows)
            by_weight[chunk.place] = part.mul_(unit)
