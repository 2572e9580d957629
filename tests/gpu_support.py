"""What the GPU cases share: programs of rules, tensors of awkward sizes, launches."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ravine.engine import gpu, reference
from ravine.engine.program import Program, Stage
from ravine.rules import RULES

DEVICE = "cpu" if gpu.interpreted() else "cuda"
# Every kind of end of a block; the interpreter takes each block by itself, and its time.
SIZES = [3, 0, 1500, 1, 1024] if gpu.interpreted() else [3, 0, 5000, 1, 1024, 1000, 2048]
TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.float32: {"rtol": 3e-6, "atol": 3e-7},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-6},
    torch.float16: {"rtol": 2**-10, "atol": 1e-6},
}
# An option changes an equation, and a type how it is loaded and stored: the interpreter, which works on
# arrays of NumPy an instruction at a time, has each option in the type that shows the smallest error.
ONE_TYPE = [torch.float64] if gpu.interpreted() else list(TOLERANCE)


def _patch_once_a_launch():
    """Let Triton's interpreter replace the functions of its language once a launch.

    It does so at every call of a function within a kernel, and never takes that back: the same
    replacements again, half of the time of these cases.
    """
    from triton import language
    from triton.runtime import interpreter

    patch, replaced = interpreter._patch_lang, set()

    def once(fn):
        seen = {m.__name__ for m in fn.__globals__.values() if m in (language, language.core)}
        scope = interpreter._LangPatchScope() if seen <= replaced else patch(fn)
        restore = scope.restore
        replaced.update(seen)

        def restored():  # by the launch, at its end
            restore()
            replaced.clear()

        scope.restore = restored
        return scope

    interpreter._patch_lang = once


if gpu.interpreted():
    _patch_once_a_launch()

HYPERPARAMETERS = {
    "Adam": [{}, {"betas": (0.5, 0.75), "eps": 1e-3}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}],
    "AdEMAMix": [{}, {"alpha_warmup": 4, "beta3_warmup": 5}],
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.5, "dampening": 0.25},
        {"momentum": 0.9, "nesterov": True},
    ],
    "Momentum": [{}, {"beta": 0.5}],
    "RMSprop": [
        {},
        {"momentum": 0.9},
        {"centered": True, "alpha": 0.5},
        {"eps_inside_sqrt": True, "momentum": 0.5, "eps": 1e-2},
    ],
}
RULE_CASES = [(name, options) for name in RULES for options in HYPERPARAMETERS.get(name, [{}])]


def rule_program(name):
    rule = RULES[name]
    stage = Stage(
        rule.equation,
        ("w", "g", *rule.states),
        ("w", *rule.states),
        tuple(rule.numbers),
        tuple(rule.shared),
    )
    return Program([stage], private=("g",))


def numbers_of(name):
    """Return values for the numbers that are state of a rule, all of them in (0, 1)."""
    return dict.fromkeys((*RULES[name].numbers, *RULES[name].shared), 0.25)


def launch(program, types, tensors, values=(), **options):
    """Compile for the first values and make a launch over the tensors, a row for each of values."""
    specialised = program.specialise(values[0])
    totals = options.pop("totals", ())
    arrays = [name for name in specialised.variables if name not in totals]
    kernel = gpu.compiled(specialised, {name: types[name] for name in arrays}, totals)
    made = gpu.Launch(
        kernel,
        [next(iter(t.values())).numel() for t in tensors],
        arrays=len(arrays),
        slots=len(specialised.slots),
        rows=len(values),
        totals=len(totals),
    )
    for k, name in enumerate(arrays):
        made.set_addresses(k, [t[name].data_ptr() for t in tensors])
    for row, numbers in enumerate(values):
        made.set_scalars(row, specialised.scalars(numbers))
    return made


def random_tensors(program, types, sizes=SIZES):
    generator = torch.Generator().manual_seed(7)
    return [
        {
            # Away from 0, so that the root of a centred mean square stays one.
            name: (torch.rand(size, generator=generator, dtype=torch.float64) + 0.25)
            .to(types[name])
            .to(DEVICE)
            for name in program.variables
        }
        for size in sizes
    ]


def expected(program, tensors, values, types, computed):
    wide = {name: tensor.to(computed) for name, tensor in tensors.items()}
    new = reference.evaluate(program, wide, values)
    return {
        name: new[name].to(types[name]) if name in new else tensor.clone()
        for name, tensor in tensors.items()
    }


def assert_same(got, want, dtype):
    for g, w in zip(got, want, strict=True):
        for name in w:
            torch.testing.assert_close(g[name], w[name], **TOLERANCE[dtype], msg=lambda m: m)


class Reads(TorchDispatchMode):
    """Counts how often the host waits for a number of a tensor."""

    count = 0
    operations = "local_scalar|is_nonzero"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += bool(re.search(self.operations, str(func)))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    with Reads() as mode:

        def counted(self, of):
            mode.count += 1
            return of(self)

        for name in ("tolist", "numpy", "cpu"):
            of = getattr(torch.Tensor, name)
            monkeypatch.setattr(torch.Tensor, name, functools.partialmethod(counted, of))
        yield mode
