"""The functions that an equation may call, on Python numbers and on PyTorch tensors.

An equation is written with these names (or with the ones of the same meaning in ``math``,
``torch`` and ``numpy``; see `CANONICAL`). Called directly they work on numbers and on tensors, which
is all that the reference executor needs. The CPU and GPU executors bind the same names to their own.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Value = Any  # a Python number or a tensor


def _dispatch(
    name: str, scalar: Callable[[float], float], tensor: Callable[[Tensor], Tensor]
) -> Callable[[Value], Value]:
    def function(x: Value) -> Value:
        return tensor(x) if isinstance(x, Tensor) else scalar(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}(x)``, element by element on a tensor."
    return function


def _scalar_exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _scalar_log(x: float) -> float:
    if x == 0:
        return -math.inf
    return math.log(x) if x > 0 else math.nan


def _scalar_log1p(x: float) -> float:
    if x == -1:
        return -math.inf
    return math.log1p(x) if x > -1 else math.nan


def _scalar_sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _scalar_sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + _scalar_exp(-x))
    z = _scalar_exp(x)
    return z / (1 + z)


def _scalar_sign(x: float) -> float:
    return x if x != x else float((x > 0) - (x < 0))


def _scalar_expm1(x: float) -> float:
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


sqrt = _dispatch("sqrt", _scalar_sqrt, torch.sqrt)
exp = _dispatch("exp", _scalar_exp, torch.exp)
expm1 = _dispatch("expm1", _scalar_expm1, torch.expm1)
log = _dispatch("log", _scalar_log, torch.log)
log1p = _dispatch("log1p", _scalar_log1p, torch.log1p)
log1p_of_fraction = _dispatch("log1p_of_fraction", _scalar_log1p, torch.log1p)
log1p_of_fraction.__doc__ = """log(1 + x) of 0 <= x <= 1, in a kernel a third of `log1p`'s work.

NaN stays NaN. Outside of 0 to 1 a kernel's result is some number.
"""
tanh = _dispatch("tanh", math.tanh, torch.tanh)
sigmoid = _dispatch("sigmoid", _scalar_sigmoid, torch.sigmoid)
sign = _dispatch("sign", _scalar_sign, lambda x: torch.where(x != x, x, torch.sign(x)))
abs = _dispatch("abs", builtins.abs, torch.abs)


def where(condition: Value, a: Value, b: Value) -> Value:
    """``a`` where the condition holds, ``b`` elsewhere; the branch not taken has no influence."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        # torch.where of two numbers is float32 whatever the condition came from.
        exact = all(x != x or float(np.float32(x)) == x for x in (a, b))
        dtype = torch.float32 if exact else torch.float64
        # Not torch.tensor, which would copy a number of the host's while a CUDA graph is captured.
        a = torch.full((), a, dtype=dtype, device=condition.device)
        return torch.where(condition, a, b)
    return torch.where(condition, a, b)


def maximum(a: Value, b: Value) -> Value:
    """The larger one; NaN if either is NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.maximum(a, b)
    if isinstance(a, Tensor):
        return torch.clamp(a, min=b)
    if isinstance(b, Tensor):
        return torch.clamp(b, min=a)
    return a if a >= b or a != a else b


def minimum(a: Value, b: Value) -> Value:
    """The smaller one; NaN if either is NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    if isinstance(a, Tensor):
        return torch.clamp(a, max=b)
    if isinstance(b, Tensor):
        return torch.clamp(b, max=a)
    return a if a <= b or a != a else b


def negation(condition: Value) -> Value:
    """``~condition``; of True, which is 1 to Python, ``~`` would be -2."""
    return torch.logical_not(condition) if isinstance(condition, Tensor) else not condition


FUNCTIONS: dict[str, Callable[..., Value]] = {
    f.__name__: f
    for f in (
        sqrt, exp, expm1, log, log1p, log1p_of_fraction, tanh, sigmoid, sign, abs, where,
        maximum, minimum,
    )
}  # fmt: skip
"""Canonical name -> function on numbers and tensors."""


def _wide(x: Value) -> Tensor:
    return torch.as_tensor(x).to(torch.float64)


def tensor_norm(x: Value) -> Tensor:
    """The root of the sum of squares over one tensor, a number for all of its elements.

    Squares and sum are float64, so that they neither overflow nor vanish in a narrower type.
    """
    return _wide(x).square().sum().sqrt()


def tensor_mean(x: Value) -> Tensor:
    """The mean over one tensor, a number for all of its elements; NaN where there are none."""
    return _wide(x).mean()


def model_sum(x: Value) -> Tensor:
    """The sum over all tensors that an optimizer steps; called alone, over the one that it is given."""
    return _wide(x).sum()


REDUCTIONS: dict[str, Callable[[Value], Tensor]] = {
    f.__name__: f for f in (tensor_norm, tensor_mean, model_sum)
}
"""Functions that need every element before any: the engine makes a sweep of its own for them."""


def divide(a: float, b: float) -> float:
    """``a / b`` as tensors divide: infinity or NaN where Python raises."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def raise_to(a: float, b: float) -> float:
    """``a ** b`` as tensors do: infinity or NaN where Python raises or turns complex."""
    if a == 0 and b < 0:
        return math.inf
    try:
        power = a**b
    except OverflowError:
        return math.inf
    return math.nan if isinstance(power, complex) else power


def host_number(value: Any) -> Any:
    """A hyperparameter as Python computes with it: a tensor as its number, in tuples too."""
    if isinstance(value, (tuple, list)):
        for one in value:
            if type(one) is not float:
                return tuple(map(host_number, value))
        return value if type(value) is tuple else tuple(value)
    return value.item() if isinstance(value, Tensor) else value


HOST: dict[str, Callable[..., Value]] = FUNCTIONS | {"divide": divide, "raise_to": raise_to}
"""What the numbers of a step are computed with, before any element is."""

# What else a person may have called in the equation, and what it means.
CANONICAL: dict[Any, str] = {f: name for name, f in (FUNCTIONS | REDUCTIONS).items()} | {
    builtins.abs: "abs",
    builtins.max: "maximum",
    builtins.min: "minimum",
    torch.clamp_min: "maximum",
    torch.clamp_max: "minimum",
}
for _module in (math, torch, np):
    for _name in FUNCTIONS:
        if hasattr(_module, _name):
            CANONICAL[getattr(_module, _name)] = _name
CANONICAL[math.fabs] = "abs"
