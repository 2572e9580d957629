"""The compiler of CPU kernels: all that an equation may say, vectors, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch

import ravine
from ravine import optim
from ravine.engine import (
    cpu,
    cpu_compiler,
    kernel_cache,
    machine_code,
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


@ravine.update_rule
def everything(w, g, *, lr, p=1.7):
    a = exp(-abs(g)) + expm1(g) * log1p(abs(w)) - log(abs(g)) / sqrt(abs(w))
    b = where((g > 0) & (w <= 1) | ~(g == w), tanh(a) * sigmoid(w), sign(g) ** 2)
    c = where(maximum(log(w), b) == b, 1.0, minimum(log(g), w)) + (g >= 0.5) * w**3
    return w - lr * (+b + abs(c) ** p) / a


def hard(count, dtype, seed):
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    special = [0.0, -0.0, 1.0, 0.5, 1e-40, -3e38, 1e-7, 60.0, torch.inf, -torch.inf, torch.nan]
    x[: len(special)] = torch.tensor(special)
    return x.to(dtype)


def stepped(rule, dtype, **options):
    weights = [torch.nn.Parameter(hard(n, dtype, n)) for n in (11, 4099, 70_001)]
    optimizer = rule(weights, lr=0.1, **options)
    for weight in weights:
        weight.grad = hard(weight.numel(), dtype, 7).roll(3)
    optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.fixture
def texts(monkeypatch):
    """The sources of the kernels that are made."""
    seen, make = [], kernel_cache.function

    def recorded(source, name):
        seen.append(source)
        return make(source, name)

    cpu._compiled.cache_clear()
    monkeypatch.setattr(kernel_cache, "function", recorded)
    yield seen
    cpu._compiled.cache_clear()


def test_all_that_an_equation_may_say_is_computed_as_by_torch(texts):
    ours = stepped(everything, torch.float64)
    assert texts, "no kernel was compiled"
    theirs = stepped(everything, torch.float64, backend="reference")
    assert len(texts) == 1
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=0, equal_nan=True)
        assert a.isfinite().double().mean() > 0.5


def test_the_loop_over_the_elements_becomes_vectors(texts):
    stepped(optim.Adam, torch.float32)
    module = str(machine_code.optimised(cpu_compiler.compiled(texts[-1], "kernel")))
    assert re.search(r"fdiv contract <\d+ x float>", module), "one element at a time"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("x = [1]", r"'\[1\]' is not in the language"),
        ("x = lambda: 1", "'lambda: 1' is not in the language"),
        ("x = float32(1.0) + head_address", "float32 beside int64"),
        ("x = sqrt(head_address)", "int64 where float32 should be"),
        ("if head_address > 0: head_address = 0", "'head_address' is an argument or counts"),
        ("i = 0\n    for i in range(3):\n        head_address", "'i' counts a loop, and was"),
        ("x = unheard_of", "'unheard_of' is no number and no kind"),
        ("x = head_address.item()", r"'head_address.item\(\)' is not in the language"),
        ("x = unheard_of(head_address)", "'unheard_of' is not in the language"),
    ],
)
def test_what_is_not_in_the_language_is_told(line, error):
    with pytest.raises(TypeError, match=error):
        cpu_compiler.compiled(
            f"number = float32\n\ndef kernel(head_address):\n    {line}\n", "kernel"
        )
