"""Checks of what a task is made of; every message says what to do."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ravine.data import Arrays, Source
from ravine.data.arrays import as_tensor, is_mapped, torch_dtype
from ravine.errors import TaskError

Data: TypeAlias = "tuple[Tensor, Tensor] | Source | Dataset[Any] | DataLoader[Any]"


def check_data(task: str, part: str, data: object) -> Data:
    """Return the data as a pair of tensors, a Source, a Dataset or a DataLoader, or raise TaskError.

    NumPy arrays become tensors that share their memory. Where one of the two is memory-mapped,
    the pair becomes a Source, which reads it row by row and looks at the values then.
    """
    where = f"{part} of task {task!r}"
    if isinstance(data, DataLoader | Dataset | Source):
        _check_sized(where, data)
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        got = type(data).__name__
        if isinstance(data, tuple | list):
            got += f" of {len(data)} items"
        raise TaskError(
            "the data is neither a pair of tensors nor a Dataset or DataLoader",
            where=where,
            got=got,
            expected="(X, y), a source of ravine.data, a torch Dataset or a torch DataLoader",
            do="put inputs and targets in one tuple, such as train=(X, y)",
        )
    mapped = any(is_mapped(value) for value in data)
    inputs, targets = (
        _rows(f"{label} in {where}", label, value, mapped)
        for label, value in zip(("X", "y"), data, strict=True)
    )
    if len(inputs) != len(targets):
        raise TaskError(
            "X and y differ in length",
            where=where,
            got=f"X {tuple(inputs.shape)}, y {tuple(targets.shape)}",
            expected="the same number of rows, the first dimension, in both",
            do="look where rows were dropped from one of them only",
        )
    if len(inputs) == 0:
        raise TaskError(
            "the data is empty",
            where=where,
            got=f"X {tuple(inputs.shape)}",
            expected="one row at least",
            do="look at the filter or split that made it; leave out valid or test if there is none",
        )
    if mapped:
        return Arrays(inputs, targets)
    return inputs, targets


def check_same_kind(task: str, part: str, data: Data, train: Data) -> None:
    """Raise TaskError if tensors of a part differ from the training tensors in kind."""
    if not (isinstance(data, tuple) and isinstance(train, tuple)):
        return
    for label, value, model in zip(("X", "y"), data, train, strict=True):
        if value.dtype != model.dtype or value.ndim != model.ndim:
            raise TaskError(
                f"{label} is of another kind than in the training data",
                where=f"{part} of task {task!r}",
                got=f"{tuple(value.shape)} {value.dtype}",
                expected=f"{model.ndim} dimensions of {model.dtype}, as in train",
                do="prepare all parts by the same steps",
            )


def rows_of(data: Data) -> int | None:
    """Return the number of samples, or None where a loader or dataset does not know."""
    counted: Any = data
    if isinstance(data, tuple):
        counted = data[0]
    elif isinstance(data, DataLoader):
        counted = data.dataset
    try:
        return len(counted)
    except TypeError:
        return None


def _check_sized(where: str, data: Data) -> None:
    if rows_of(data) == 0:
        raise TaskError(
            "the data is empty",
            where=where,
            got=f"{type(data).__name__} of length 0",
            expected="one sample at least",
            do="look at the filter or split that made it",
        )


def _rows(where: str, label: str, value: Any, mapped: bool) -> Any:
    """Return inputs or targets as they are if they are mapped, else as a tensor; or raise."""
    if isinstance(value, np.ndarray):
        torch_dtype(label, value, where)
        value = value if mapped else as_tensor(value)
    if not isinstance(value, Tensor | np.ndarray):
        raise TaskError(
            f"{label} is not a tensor",
            where=where,
            got=f"{type(value).__module__}.{type(value).__name__}",
            expected="a torch.Tensor or a numpy.ndarray",
            do=f"convert it once: torch.as_tensor({label})"
            + (", and .float() for inputs in double precision" if label == "X" else ""),
        )
    if value.ndim == 0:
        raise TaskError(
            f"{label} is a single number",
            where=where,
            got="a tensor of shape ()",
            expected="rows in the first dimension",
            do=f"for a single row write {label}[None]",
        )
    if isinstance(value, Tensor):
        _check_finite(where, label, value)
    return value


def _check_finite(where: str, label: str, value: Tensor) -> None:
    if not (value.is_floating_point() or value.is_complex()):
        return
    bad = ~torch.isfinite(value)
    count = int(bad.sum())
    if count:
        first = tuple(torch.nonzero(bad)[0].tolist())
        position = ", ".join(str(index) for index in first)
        raise TaskError(
            f"{label} holds values that are not finite",
            where=where,
            got=f"{count} of {value.numel()}; the first is "
            f"{value[first].item()} at {label}[{position}]",
            expected="finite numbers",
            do="drop those rows or fill the gaps before making the task",
        )
