"""Loops with long chains are told to LLVM, and only they."""

from __future__ import annotations

import re

import pytest

from ravine.engine import cpu_compiler, machine_code

KERNEL = """
number = float32

def kernel(head_address):
    head = address_to_array(head_address, 3, int64)
    x = address_to_array(head[0], head[2], number)
    for i in range(head[2]):
        x[i] = {}
"""


@pytest.mark.parametrize(
    ("equation", "marked"),
    [
        ("number(1.0) / (number(2.0) + number(1.0) / x[i])", True),
        ("number(1.0) / x[i]", False),
        ("x[i] * x[i] - number(1.0)", False),
    ],
)
def test_two_divisions_mark_a_loop(equation, marked):
    text = cpu_compiler.compiled(KERNEL.format(equation), "kernel")
    assert ("llvm.loop" in text) == marked
    code = str(machine_code.optimised(text))  # LLVM takes it, or this raises
    assert " x float>" in code
    if marked:
        assert len(re.findall(r"fdiv.* <\d+ x float>", code)) >= 8  # two, side by side four times
