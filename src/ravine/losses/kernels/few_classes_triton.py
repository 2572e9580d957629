"""Rows of few numbers, read and written in the order of memory, while each thread has whole rows of its own.

Threads that share a row repeat what is done once a row. A tile (columns, rows) has Triton's usual layout,
which is a row for each thread; it is gathered from the numbers as they lie, through shared memory, so that
global memory is moved 16 bytes at a time however many numbers a row has.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def loaded(source, rows, FEW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the program's rows of ``FEW`` numbers, as a tile (COLUMNS, ROWS); what fills it up is any."""
    near = tl.arange(0, ROWS * COLUMNS)
    first = tl.program_id(0).to(tl.int64) * ROWS
    source += first * FEW + near
    left = rows - first
    # A mask that is not known to be whole keeps loads narrow.
    if left >= ROWS:
        x = tl.load(source, mask=near < ROWS * FEW, other=0)
    else:
        x = tl.load(source, mask=near < left * FEW, other=0)
    return tl.reshape(tl.gather(x, near % ROWS * FEW + near // ROWS, axis=0), (COLUMNS, ROWS))


@triton.jit
def store(destination, x, rows, FEW: tl.constexpr):
    """Write the first ``FEW`` columns of a tile (columns, rows) as the program's rows."""
    COLUMNS: tl.constexpr = x.shape[0]
    ROWS: tl.constexpr = x.shape[1]
    near = tl.arange(0, ROWS * COLUMNS)
    first = tl.program_id(0).to(tl.int64) * ROWS
    destination += first * FEW + near
    left = rows - first
    # Also what lies beyond the rows comes from a place that there is, as COLUMNS >= FEW.
    x = tl.gather(tl.reshape(x, (ROWS * COLUMNS,)), near % FEW * ROWS + near // FEW, axis=0)
    if left >= ROWS:
        tl.store(destination, x, mask=near < ROWS * FEW)
    else:
        tl.store(destination, x, mask=near < left * FEW)
