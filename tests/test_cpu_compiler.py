"""The compiler of generated CPU kernels against Numba, which compiles the same text by other means."""

from __future__ import annotations

import re

import pytest
import torch

import ravine
from ravine import losses, optim
from ravine.engine import (
    cpu,
    cpu_compiler,
    kernel_cache,
    machine_code,
    wide_math,
)  # fmt: skip
from ravine.engine.functions import (
    abs,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    sigmoid,
    sign,
    sqrt,
    tanh,
    where,
)  # fmt: skip
from ravine.losses import pass_plan

BY_NUMBA = """
import math
from numba import cfunc, float32, float64, int32, int64, njit, uint16
from ravine.engine.intrinsics import *
from ravine.engine.vector_math import exp, expm1, log, log1p, sigmoid, tanh

OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
reordered = njit(error_model="numpy", fastmath={"contract", "reassoc"})
exactly = njit(forceinline=True, **OPTIONS)
sqrt = math.sqrt
where = exactly(lambda c, a, b: a if c else b)
negation = exactly(lambda c: not c)
maximum = exactly(lambda a, b: a if (a >= b or a != a) else b)
minimum = exactly(lambda a, b: a if (a <= b or a != a) else b)
power = exactly(lambda x, y: x**y)
power2 = exactly(lambda x: x * x)
power3 = exactly(lambda x: x * x * x)
sign = exactly(
    lambda x: where(x > number(0), number(1), where(x < number(0), -number(1), x))
)
"""


@ravine.update_rule
def everything(w, g, *, lr, p=1.7):
    a = exp(-abs(g)) + expm1(g) * log1p(abs(w)) - log(abs(g)) / sqrt(abs(w))
    b = where((g > 0) & (w <= 1) | ~(g == w), tanh(a) * sigmoid(w), sign(g) ** 2)
    c = where(maximum(log(w), b) == b, 1.0, minimum(log(g), w)) + (g >= 0.5) * w**3
    return w - lr * (+b + abs(c) ** p) / a


def by_numba(source, name):
    """What `kernel_cache.function` returns, from Numba."""
    from ravine.engine import vector_math  # imports Numba

    text = re.sub("^def equation", "@exactly\ndef equation", source, flags=re.MULTILINE)
    text = text.replace("def kernel", '@cfunc("void(int64)", **OPTIONS)\ndef kernel')
    less = re.search(r"^from ravine.engine.wide_math import (.*)", text, re.MULTILINE)
    space = {}
    exec(BY_NUMBA, space)
    for one in less[1].split(", ") if less else ():
        space[f"less_exact_{one}"] = vector_math.callable_of(one, getattr(wide_math, one), "")
        text = text.replace(less[0], "")
        text = re.sub(rf"(?<!\w){one}\(", f"less_exact_{one}(", text)
    exec(text, space)
    return space[name], space[name].address


def hard(count, dtype, seed):
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    special = [0.0, -0.0, 1.0, 0.5, 1e-40, -3e38, 1e-7, 60.0, torch.inf, -torch.inf, torch.nan]
    x[: len(special)] = torch.tensor(special)
    return x.to(dtype)


def stepped(rule, dtype):
    weights = [torch.nn.Parameter(hard(n, dtype, n)) for n in (11, 4099, 70_001)]
    optimizer = rule(weights, lr=0.1)
    for weight in weights:
        weight.grad = hard(weight.numel(), dtype, 7).roll(3)
    optimizer.step()
    return [weight.detach() for weight in weights]


def lost(loss, dtype):
    x = hard(5003, dtype, 1).nan_to_num(0.25, 80.0, -80.0).clamp(-80, 80).requires_grad_()
    y = hard(5003, dtype, 2).sigmoid().nan_to_num(0.5)
    weight = hard(5003, x.dtype, 3).abs().nan_to_num(0.0).clamp(max=2.0)
    value = loss(x, y, weight=weight, reduction="sum")
    value.backward()
    return [value.detach(), x.grad]


CASES = {
    "everything": lambda: stepped(everything, torch.float64),
    "focal-in-halves": lambda: lost(losses.focal, torch.bfloat16),
    "focal-and-a-sum": lambda: lost(losses.focal, torch.float64),
}


def bits(tensors):
    """Of a NaN only that it is one."""
    return [t.masked_fill(t.isnan(), 1.5).double().numpy().tobytes() for t in tensors]


@pytest.fixture
def anew(monkeypatch):
    """Forget what is compiled, before and after; return how kernels are then made, and their texts."""
    texts = []

    def make(compiler):
        def recorded(source, name):
            texts.append(source)
            return compiler(source, name)

        cpu._compiled.cache_clear()
        pass_plan._plans.__dict__.clear()
        monkeypatch.setattr(kernel_cache, "function", recorded)
        return texts

    yield make
    cpu._compiled.cache_clear()
    pass_plan._plans.__dict__.clear()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_as_by_numba(anew, case):
    texts = anew(kernel_cache.function)
    ours = CASES[case]()
    mine = list(texts)
    anew(by_numba)
    theirs = CASES[case]()
    assert texts == mine * 2
    assert mine, "no kernel was compiled"
    assert bits(ours) == bits(theirs)
    assert [t.isnan().tolist() for t in ours] == [t.isnan().tolist() for t in theirs]


def test_the_loop_over_the_elements_becomes_vectors(anew):
    texts = anew(kernel_cache.function)
    stepped(optim.Adam, torch.float32)
    module = str(machine_code.optimised(cpu_compiler.compiled(texts[-1], "kernel")))
    assert re.search(r"fdiv contract <\d+ x float>", module), "one element at a time"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("x = [1]", r"'\[1\]' is not in the language"),
        ("x = head_address if 1 else 2", "is not in the language"),
        ("x = float32(1.0) + head_address", "float32 beside int64"),
        ("x = sqrt(head_address)", "int64 where float32 should be"),
    ],
)
def test_what_is_not_in_the_language_is_told(line, error):
    with pytest.raises(TypeError, match=error):
        cpu_compiler.compiled(
            f"number = float32\n\ndef kernel(head_address):\n    {line}\n", "kernel"
        )
