"""Runs the kernels of class overlaps on tensors of a GPU; see `class_overlap_triton`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.losses.kernels import class_overlap_triton as kernels
from ravine.losses.kernels.class_overlap_cpu import is_last

TILE = 2048
"""Numbers of a tile at least, half as many of float64: 16 a thread."""

PLACES = 8
"""Places of a tile at least: a sector of memory of float32."""

PROGRAMS = 2048
"""Programs that share the places of all samples, more or less: some 16 for each of a GPU's cores."""


class Tile(NamedTuple):
    """How places are cut. By reasoning: nothing of this was measured on a GPU."""

    classes: int
    places: int
    warps: int


def tile_of(classes: int, dtype: torch.dtype) -> Tile:
    """Return the tile for so many classes."""
    size = TILE // 2 if dtype is torch.float64 else TILE
    columns = triton.next_power_of_2(classes)
    places = max(size // columns, PLACES)
    return Tile(columns, places, min(max(columns * places // size, 1) * 4, 16))


def widest(dtype: torch.dtype) -> int:
    """Return up to how many classes a tile stays in registers; of twice as many some is spilled."""
    return 256 if dtype is torch.float64 else 1024


def overlap_sums(
    logits: Tensor, target: Tensor, ignored: int, counts: Tensor | None = None
) -> Tensor:
    """Return the sums; arguments as in `class_overlap_cpu.overlap_sums`. The order is always the same."""
    samples, classes, places = logits.shape
    number = number_type(logits.dtype)
    if logits.numel() == 0:
        return torch.zeros((samples, 3, classes), dtype=number, device=logits.device)
    tile = tile_of(classes, logits.dtype)
    tiles = triton.cdiv(places, tile.places)
    share = triton.cdiv(samples * tiles, PROGRAMS)  # tiles of a program
    chunks = triton.cdiv(tiles, share)
    found = torch.empty((samples, chunks, 3, classes), dtype=torch.float64, device=logits.device)
    _launch(
        kernels.sums, samples * chunks, logits, target, ignored, counts,
        (found, chunks, share),
    )  # fmt: skip
    return (found[:, 0] if chunks == 1 else found.sum(1)).to(number)


def overlap_slopes(
    logits: Tensor,
    target: Tensor,
    ignored: int,
    arrived: Tensor,
    gradient: Tensor,
    counts: Tensor | None = None,
) -> None:
    """Fill the gradient; arguments as in `class_overlap_cpu.overlap_slopes`."""
    samples, classes, places = logits.shape
    if logits.numel() == 0:
        return
    tiles = triton.cdiv(places, tile_of(classes, logits.dtype).places)
    if logits.dtype is torch.bfloat16:
        gradient = gradient.view(torch.int16)
    _launch(
        kernels.slopes, samples * tiles, logits, target, ignored, counts,
        (arrived, gradient, tiles),
    )  # fmt: skip


def _launch(
    kernel: Any,
    programs: int,
    logits: Tensor,
    target: Tensor,
    ignored: int,
    counts: Tensor | None,
    own: tuple[Any, ...],
) -> None:
    """Launch a kernel over tiles; ``own``: its arguments after those that both have."""
    _, classes, places = logits.shape
    tile = tile_of(classes, logits.dtype)
    absent = target  # in the place of what is not looked at
    with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
        kernel[(programs,)](
            logits.view(torch.int16) if logits.dtype is torch.bfloat16 else logits,
            target,
            absent if counts is None else counts.view(torch.uint8),
            *own,
            classes,
            places,
            ignored,
            SOFT=target.ndim == 3,
            LAST=is_last(logits),
            COUNTED=counts is not None,
            NUMBER=tl.float64 if logits.dtype is torch.float64 else tl.float32,
            CLASSES=tile.classes,
            PLACES=tile.places,
            num_warps=tile.warps,
            enable_fp_fusion=True,
        )
