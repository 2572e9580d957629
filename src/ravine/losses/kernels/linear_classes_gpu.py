"""Runs the kernels of `linear_classes_triton` on tensors of a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from ravine.losses.kernels import linear_classes_triton
from ravine.losses.kernels.row_launch import tile_of
from ravine.losses.linear_chunks import Terms
from ravine.losses.linear_state import Chunk, Seen, Slopes


def look(chunk: Chunk, seen: Seen, terms: Terms) -> None:
    """Add a chunk to what has been seen."""
    state = seen.top, seen.rest, seen.ties, seen.total, seen.inner, seen.own
    _launch(linear_classes_triton.look, chunk, terms, state, ())


def turn(chunk: Chunk, slopes: Slopes, terms: Terms, into: Tensor) -> None:
    """Write the slopes by the logits of a chunk into a half-precision tensor where these lie."""
    bits = into.view(torch.int16) if into.dtype is torch.bfloat16 else into
    _launch(linear_classes_triton.turn, chunk, terms, (*slopes, bits), (into.stride(0),))


def _launch(
    kernel: Any, chunk: Chunk, terms: Terms, more: Iterable[Tensor], strides: tuple[int, ...]
) -> None:
    logits, target = chunk.logits, chunk.target
    rows, width = logits.shape
    stride = logits.stride(0)
    tile = tile_of(stride, logits.dtype)  # that of a whole chunk, for the last one too
    soft = target.ndim == 2
    with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
        kernel[(triton.cdiv(rows, tile.rows),)](
            logits,
            target,
            logits if chunk.bias is None else chunk.bias,  # in the place of what is not looked at
            logits if chunk.class_weight is None else chunk.class_weight,
            *more,
            rows,
            width,
            stride,
            target.stride(0) if soft else 0,
            *strides,
            chunk.start,
            chunk.classes,
            terms.soft_cap or 1.0,
            EPSILON=float(terms.options["label_smoothing"]),
            SOFT=soft,
            WEIGHTED=chunk.class_weight is not None,
            BIASED=chunk.bias is not None,
            CAPPED=terms.soft_cap is not None,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.warps,
            enable_fp_fusion=True,
        )
