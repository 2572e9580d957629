"""Windows of one long sequence of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.fingerprint import of_array
from ravine.data.rows import RowSource
from ravine.data.source import Pair
from ravine.errors import ArgumentError, DataError


class Tokens(RowSource):
    """Windows of a long sequence of tokens, and the tokens one place ahead.

    Row i has as input the tokens from ``i * length`` on and as target those one place ahead, both
    int64 (length,). Every token but the first is a target once an epoch; a rest that is shorter
    than a window is left out (``rest`` tells how many tokens).

    Args:
        tokens: a 1-dim array of integers, such as ``numpy.memmap("train.bin", dtype=numpy.uint16)``,
            which is read window by window.
        length: of a window.

    Raises:
        DataError: the tokens are not a sequence of integers, or fewer than ``length + 1``.

    >>> Tokens(np.arange(8), length=3).take(torch.tensor([1]))
    (tensor([[3, 4, 5]]), tensor([[4, 5, 6]]))
    """

    def __init__(self, tokens: np.ndarray[Any, Any], length: int) -> None:
        check_length(length)
        sequence = np.asarray(tokens)
        if sequence.ndim != 1 or sequence.dtype.kind not in "iu":
            raise DataError(
                "the tokens are not one sequence of integers",
                got=f"shape {sequence.shape}, dtype {sequence.dtype}",
                expected="a 1-dim array of integers",
            )
        self._tokens = sequence
        self.length = length
        self._rows = windows_of(len(sequence), length, "tokens")
        self.rest = len(sequence) - 1 - self._rows * length

    def __len__(self) -> int:
        return self._rows

    def take(self, rows: Tensor) -> Pair:
        """Return windows by number: inputs and targets, int64 (len(rows), length)."""
        places = rows.numpy()[:, None] * self.length + np.arange(self.length + 1)
        taken = torch.from_numpy(self._tokens[places].astype(np.int64))
        return taken[:, :-1], taken[:, 1:]

    def fingerprint(self) -> dict[str, Any]:
        """Return shape, dtype and checksum of the tokens, and the length of a window."""
        return {"tokens": of_array(self._tokens), "length": self.length}


def check_length(length: object) -> None:
    """Raise ArgumentError if the length of a window is no count."""
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ArgumentError(
            "the length of a window cannot be used", got=repr(length), expected="an integer >= 1"
        )


def windows_of(count: int, length: int, what: str, where: str = "") -> int:
    """Return how many windows with their targets a sequence has; raise if there is none."""
    if count <= length:
        raise DataError(
            "the sequence is shorter than a window and its targets",
            where=where,
            got=f"{count} {what}",
            expected=f"{length + 1} at least",
            do="give more text, or a smaller length",
        )
    return (count - 1) // length
