# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Squared distances between rows of two or three matrices on a GPU, and their gradients, in one launch each.

A program has a few rows and sweeps them tile by tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ravine.losses.kernels.row_tiles import number_of, write_slopes

TILE = 2048
"""Numbers of a tile: 16 a thread. By reasoning, nothing of this was measured on a GPU."""

WIDEST = 1024
"""Numbers of a row in a tile at most."""


@triton.jit
def _numbers(x, place, inside):
    return number_of(tl.load(x + place, mask=inside, other=0), tl.float64).to(tl.float64)


@triton.jit
def _squares(x, y, inside, eps):
    d = x - y + eps
    return tl.sum(tl.where(inside, d * d, 0.0), axis=1)


@triton.jit(do_not_specialize=["rows"])
def distances(
    a, b, c, found, rows, width, EPS: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the sums of squares of each row's differences."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    ab = tl.zeros((ROWS,), tl.float64)
    ac, bc = ab, ab
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = real[:, None] & (column < width)[None, :]
        place = (row * width)[:, None] + column[None, :]
        x, y = _numbers(a, place, inside), _numbers(b, place, inside)
        ab += _squares(x, y, inside, EPS)
        if PAIRS > 1:
            z = _numbers(c, place, inside)
            ac += _squares(x, z, inside, EPS)
            if PAIRS > 2:
                bc += _squares(y, z, inside, EPS)
    tl.store(found + row, ab, mask=real)
    if PAIRS > 1:
        tl.store(found + rows + row, ac, mask=real)
    if PAIRS > 2:
        tl.store(found + 2 * rows + row, bc, mask=real)


@triton.jit
def _pull(times, d):
    """Nothing times anything is nothing."""
    return tl.where(times[:, None] == 0, 0.0, times[:, None] * d)


@triton.jit(do_not_specialize=["rows"])
def slopes(
    a, b, c, times, of_a, of_b, of_c, rows, width, EPS: tl.constexpr, PAIRS: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write what each matrix gets of the differences, each times the number of its pair and row."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    ab = tl.load(times + row, mask=real, other=0.0)
    ac, bc = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    if PAIRS > 1:
        ac = tl.load(times + rows + row, mask=real, other=0.0)
    if PAIRS > 2:
        bc = tl.load(times + 2 * rows + row, mask=real, other=0.0)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = real[:, None] & (column < width)[None, :]
        place = (row * width)[:, None] + column[None, :]
        x, y = _numbers(a, place, inside), _numbers(b, place, inside)
        first = _pull(ab, x - y + EPS)
        of_x, of_y = first, -first
        if PAIRS > 1:
            z = _numbers(c, place, inside)
            second = _pull(ac, x - z + EPS)
            of_x += second
            of_z = -second
            if PAIRS > 2:
                third = _pull(bc, y - z + EPS)
                of_y += third
                of_z -= third
            if C:
                write_slopes(of_c, place, of_z.to(tl.float32), inside)
        if A:
            write_slopes(of_a, place, of_x.to(tl.float32), inside)
        if B:
            write_slopes(of_b, place, of_y.to(tl.float32), inside)


def tile_of(width: int) -> tuple[int, int]:
    """Return the rows and columns of a tile for rows of so many numbers."""
    columns = min(triton.next_power_of_2(width), WIDEST)
    return max(1, TILE // columns), columns


def _launch(
    kernel: Any,
    vectors: Sequence[Tensor],
    eps: float,
    numbers: Tensor,
    *others: Tensor,
    **options: bool,
) -> None:
    first = vectors[0]
    rows, width = first.shape
    height, columns = tile_of(width)
    given = [_seen(one) for one in (*vectors, first)][:3]  # a third one that nothing looks at
    with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
        kernel[(triton.cdiv(rows, height),)](
            *given, numbers, *others, rows, width,
            EPS=float(eps), PAIRS=len(numbers), ROWS=height, COLUMNS=columns, **options,
        )  # fmt: skip


def _seen(tensor: Tensor) -> Tensor:
    """Return a tensor as the kernels read it."""
    return tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor


def squared_distances(vectors: Sequence[Tensor], eps: float, pairs: int) -> Tensor:
    """Return the sum of (x - y + eps)^2 over each row, (pairs, rows); see `distances_cpu`."""
    first = vectors[0]
    found = torch.empty((pairs, len(first)), dtype=torch.float64, device=first.device)
    _launch(distances, vectors, eps, found)
    return found


def pulled(
    vectors: Sequence[Tensor], eps: float, times: Tensor, gradients: Sequence[Tensor | None]
) -> None:
    """Fill the gradients; see `distances_cpu`."""
    three = [*gradients, None][:3]
    filled = [_seen(vectors[0] if one is None else one) for one in three]
    wanted = {name: one is not None for name, one in zip("ABC", three, strict=True)}
    _launch(slopes, vectors, eps, times, *filled, **wanted)
