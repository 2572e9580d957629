"""torch.compile of a training step: one graph for the forward, one break at our step, no storm."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounterWithBackend

import ravine.losses
import ravine.optim


@pytest.fixture(autouse=True)
def _nothing_remembered():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Run:
    """A small regression with its own copy of the same weights."""

    def __init__(self, made, loss=ravine.losses.mse):
        generator = torch.Generator().manual_seed(1)
        sizes = [(8, 4), (8,), (1, 8), (1,)]
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        ).double()
        with torch.no_grad():
            for w, size in zip(self.model.parameters(), sizes, strict=True):
                w.copy_(torch.randn(size, generator=generator, dtype=torch.float64))
        self.x = torch.randn(16, 4, generator=generator, dtype=torch.float64)
        self.y = torch.randn(16, 1, generator=generator, dtype=torch.float64)
        self.loss = loss
        self.optimizer = made(self.model.parameters())

    def forward(self, x, y):
        return self.loss(self.model(x), y)

    def train_step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.forward(x, y)
        loss.backward()
        self.optimizer.step()
        return loss

    def losses(self, step, count=8):
        out = []
        for k in range(count):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.05 * 0.9**k
            out.append(step(self.x, self.y).item())
        return out


def adam(weights):
    return ravine.optim.Adam(weights, lr=0.05, clip_norm=1.0)


def expected():
    run = Run(adam)
    return run.losses(run.train_step)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_whole_step_compiled_gives_the_same_numbers_from_one_graph(backend):
    counter = CompileCounterWithBackend(backend)
    run = Run(adam)
    compiled = torch.compile(run.train_step, backend=counter)
    assert run.losses(compiled) == pytest.approx(expected(), rel=1e-12)
    assert counter.frame_count == 1  # the forward; lr has changed at every step


def test_the_numbers_are_those_of_torchs_optimizer():
    run = Run(lambda ws: ravine.optim.AdamW(ws, lr=0.05))
    other = Run(lambda ws: torch.optim.AdamW(ws, lr=0.05), torch.nn.functional.mse_loss)
    compiled = torch.compile(run.train_step, backend="aot_eager")
    assert run.losses(compiled) == pytest.approx(other.losses(other.train_step), rel=1e-12)


def test_a_compiled_forward_with_the_step_outside():
    run = Run(adam)
    assert torch._dynamo.explain(run.forward)(run.x, run.y).graph_break_count == 0
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    forward = torch.compile(run.forward, backend=counter, fullgraph=True)

    def step(x, y):
        loss = forward(x, y)
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        return loss

    assert run.losses(step) == pytest.approx(expected(), rel=1e-12)
    assert counter.frame_count == 1


def test_only_the_step_breaks_where_torch_has_no_break_of_its_own():
    run = Run(adam)
    for w in run.model.parameters():
        w.grad = torch.ones_like(w)

    def around(x):
        y = x * 2
        run.optimizer.step()
        return y + 1

    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(around, backend=counter)
    for k in range(5):
        run.optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
    assert counter.frame_count == 2  # before and after
    assert all(float(run.optimizer.state[w]["step"]) == 5 for w in run.model.parameters())


def test_hooks_and_closures_inside_a_compiled_step():
    run = Run(adam)
    seen = []
    run.optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))

    def step(x, y):
        def closure():
            run.optimizer.zero_grad()
            loss = run.forward(x, y)
            loss.backward()
            return loss

        return run.optimizer.step(closure)

    compiled = torch.compile(step, backend="eager")
    assert run.losses(compiled) == pytest.approx(expected(), rel=1e-12)
    assert len(seen) == 8


@pytest.mark.slow
def test_inductor():
    run = Run(adam)
    compiled = torch.compile(run.train_step)
    try:
        losses = run.losses(compiled)
    except torch._dynamo.exc.BackendCompilerFailed as error:  # inductor needs a C++ compiler
        pytest.skip(f"inductor cannot compile here: {error.inner_exception}")
    assert losses == pytest.approx(expected(), rel=1e-9)
