"""An equation compiled, by the reference, and called with Python floats: the three must agree."""

from __future__ import annotations

import torch

from ravine.engine import cpu
from ravine.engine.equation import Equation
from ravine.engine.program import Program, Stage
from ravine.engine.reference import evaluate

HYPERPARAMETERS = {"t": 3.0, "lr": 0.1, "a": 0.75, "pair": (0.5, 2.0), "flag": False}


def compiled(equation, tensors, dtype=torch.float64, **values):
    """Run an equation's outputs over tensors of one length with a CPU kernel."""
    outputs = tuple(f"out{k}" for k in range(count_of(equation, values)))
    program = Program([Stage(equation, equation.tensors, outputs)])
    specialised = program.specialise(values)
    names = specialised.variables
    length = len(next(iter(tensors.values())))
    memory = {**tensors, **{name: torch.zeros(length, dtype=dtype) for name in outputs}}
    launch = cpu.Launch(
        cpu.compiled(specialised, dict.fromkeys(names, dtype)),
        [length],
        arrays=len(names),
        slots=len(specialised.slots),
    )
    for k, name in enumerate(names):
        launch.set_addresses(k, [memory[name].data_ptr()])
    launch.set_scalars(0, specialised.scalars(values))
    launch.run()
    return [memory[name] for name in outputs]


def count_of(equation, values):
    zeros = [torch.ones(1, dtype=torch.float64) for _ in equation.tensors]
    result = equation.reference(*zeros, **{k: values[k] for k in equation.hyperparameters})
    return len(result) if isinstance(result, tuple) else 1


def referenced(equation, tensors, **values):
    outputs = tuple(f"out{k}" for k in range(count_of(equation, values)))
    program = Program([Stage(equation, equation.tensors, outputs)])
    found = evaluate(program, tensors, {**values, **HYPERPARAMETERS} | values)
    return [torch.as_tensor(found[name]) for name in outputs]


def called(equation, tensors, **values):
    """Call the function itself with Python floats, element by element."""
    numbers = {k: values[k] for k in equation.hyperparameters}
    rows = [
        equation.function(*(float(x) for x in row), **numbers)
        for row in zip(*(tensors[n].tolist() for n in equation.tensors), strict=True)
    ]
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


def agree(function, tensors, *, python=True, rtol=1e-12, **values):
    """Check kernel, reference and plain Python against each other."""
    equation = Equation(function)
    values = HYPERPARAMETERS | values
    kernel = compiled(equation, tensors, **values)
    oracles = [referenced(equation, tensors, **values)]
    if python:
        oracles.append(called(equation, tensors, **values))
    for oracle in oracles:
        for k, (got, want) in enumerate(zip(kernel, oracle, strict=True)):
            torch.testing.assert_close(
                got,
                want.to(torch.float64).expand_as(got),
                rtol=rtol,
                atol=1e-13,
                equal_nan=True,
                msg=lambda m, k=k: f"output {k}: {m}",
            )


def two(low=-3.0, high=3.0, count=37):
    generator = torch.Generator().manual_seed(5)
    draw = torch.rand(2, count, dtype=torch.float64, generator=generator) * (high - low) + low
    return {"w": draw[0], "g": draw[1]}
