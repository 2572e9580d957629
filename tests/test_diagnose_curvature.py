"""Curvature, noise and the steps that use them, against whole matrices and gradients by sample."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ravine import Task
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.curvature import DENSE, extremes, hessian_product
from ravine.diagnose.probes.noise import noise_scale
from ravine.diagnose.probes.place import first_place, last_place
from ravine.diagnose.program import Program


def symmetric(spectrum: list[float], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T


SPECTRA = {
    "bulk at 0 and two ends": [-2.0, *[0.0] * 197, 1e-3, 5.0],
    "positive": [1.0 + k / 10 for k in range(120)],
    "one negative": [-0.5, *[0.01 * k for k in range(150)]],
    "many equal": [*[-1.0] * 50, *[3.0] * 50],
    "small": [-1.0, 2.0],
    "one weight": [-3.0],
    "zero": [0.0] * 60,
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_ends_of_a_known_spectrum(name: str) -> None:
    spectrum = SPECTRA[name]
    matrix = symmetric(spectrum)
    found = extremes(lambda v: matrix @ v, len(spectrum))
    assert found.lowest == pytest.approx(min(spectrum), abs=2e-3)
    assert found.highest == pytest.approx(max(spectrum), abs=2e-3)
    v = found.direction
    assert float(v.norm()) == pytest.approx(1)
    assert float(v @ matrix @ v) == pytest.approx(found.lowest, abs=1e-6)


def test_lanczos_agrees_with_arpack() -> None:
    from scipy.sparse.linalg import eigsh

    generator = torch.Generator().manual_seed(3)
    half = torch.randn(300, 300, generator=generator, dtype=torch.float64)
    matrix = half + half.T
    found = extremes(lambda v: matrix @ v, 300)
    lowest = float(eigsh(matrix.numpy(), k=1, which="SA")[0][0])
    highest = float(eigsh(matrix.numpy(), k=1, which="LA")[0][0])
    assert found.lowest == pytest.approx(lowest, rel=1e-2)
    assert found.highest == pytest.approx(highest, rel=1e-2)
    assert found.lowest >= lowest - 1e-9  # from inside: never further out than the truth


@pytest.mark.parametrize("width", [2, 12])
def test_a_network_against_its_whole_hessian(width: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).double()
    X, y = torch.randn(20, 3).double(), torch.randint(0, 2, (20,))
    weights = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]
    size = sum(w.numel() for w in weights)
    assert (size <= DENSE) == (width == 2)  # both ways are taken

    def loss(*values: Tensor) -> Tensor:
        output = torch.func.functional_call(model, dict(zip(names, values, strict=True)), X)
        return nn.functional.cross_entropy(output, y)

    blocks = torch.autograd.functional.hessian(loss, tuple(w.detach() for w in weights))
    rows = [
        torch.cat([block.reshape(w.numel(), -1) for block in row], 1)
        for w, row in zip(weights, blocks, strict=True)
    ]
    whole = torch.cat(rows)
    product = hessian_product(lambda: loss(*weights), weights)
    v = torch.randn(size, dtype=torch.float64)
    torch.testing.assert_close(product(v), whole @ v)
    values = torch.linalg.eigvalsh(whole)
    found = extremes(product, size)
    assert found.lowest == pytest.approx(float(values[0]), rel=1e-3, abs=1e-6)
    assert found.highest == pytest.approx(float(values[-1]), rel=1e-3)


def test_a_loss_without_curvature_has_none() -> None:
    w = torch.ones(3, requires_grad=True)
    assert not hessian_product(lambda: 2 * w[0] + w[2], [w])(torch.ones(3)).any()


def test_the_noise_scale_against_gradients_by_sample() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    X, y = torch.randn(4096, 4).double(), torch.randn(4096, 1).double()

    def loss(weights: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        return (torch.func.functional_call(model, weights, x[None]) - t).square().mean()

    weights = {name: p.detach() for name, p in model.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, X, y)
    gradients = torch.cat([g.flatten(1) for g in each.values()], 1)
    mean = gradients.mean(0)
    naive = float(gradients.var(0).sum() / mean.square().sum())
    batches = list(gradients.view(256, 16, -1).mean(1))
    assert noise_scale(batches, 16) == pytest.approx(naive, rel=0.25)


class Surface(nn.Module):
    """A function of two numbers, whatever the input."""

    def __init__(self, start: tuple[float, float], negative: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))
        self.negative = negative

    def forward(self, rows: Tensor) -> Tensor:
        x, y = self.w
        value = x.square() + self.negative * y.square() + y**4 / 4
        return value.expand(len(rows), 1)


def program(model: nn.Module, steps: int = 30) -> Evidence:
    task = Task(
        model=model, loss=lambda output, target: (output - target).mean(), batch_size="all",
        train=(torch.zeros(8, 1), torch.zeros(8, 1)), epochs=steps,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1),
    )  # fmt: skip
    return Evidence(Program(task), time.perf_counter() + 30)


def test_the_saddle_of_x2_minus_y2() -> None:
    place = program(Surface((0.0, 0.0), -1.0)).probe(last_place)
    assert place is not None
    assert (place.lowest, place.highest, place.gradient) == (-2, 2, 0)
    assert place.saddle
    assert not place.stationary
    assert place.fall == pytest.approx(1, abs=0.5)  # the minimum is at y^2 = 2, with -1


def test_the_minimum_of_x2_plus_y2_is_no_saddle() -> None:
    place = program(Surface((0.0, 0.0), 1.0)).probe(last_place)
    assert place is not None
    assert (place.lowest, place.highest) == (2, 2)
    assert place.stationary
    assert not place.saddle


def test_a_slope_is_neither() -> None:
    place = program(Surface((1.0, 0.3), 1.0)).probe(first_place)
    assert place is not None
    assert not place.saddle
    assert not place.stationary


class Factors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(2, 4))

    def forward(self, rows: Tensor) -> Tensor:
        return self.left[rows] @ self.right


def test_the_saddle_of_a_matrix_factorisation() -> None:
    """At 0 the Hessian of |M - LR|^2 / 16 pairs L and R by -M / 8: its ends are -+ s1(M) / 8."""
    torch.manual_seed(0)
    matrix = torch.randn(4, 4)
    task = Task(model=Factors(), loss="mse", train=(torch.arange(4), matrix), batch_size="all",
                epochs=5, optimizer=lambda w: torch.optim.SGD(w, lr=0.1))  # fmt: skip
    place = Evidence(Program(task), time.perf_counter() + 30).probe(last_place)
    assert place is not None
    largest = float(torch.linalg.svdvals(matrix.double())[0])
    assert place.lowest == pytest.approx(-largest / 8, rel=1e-5)
    assert place.highest == pytest.approx(largest / 8, rel=1e-5)
    assert place.saddle


def test_a_module_without_second_derivative_has_no_place() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * g

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, rows: Tensor) -> Tensor:
            out: Tensor = Once.apply(self.w)
            return out.square().expand(len(rows), 1)

    assert program(Model()).probe(last_place) is None


def test_noise_that_drowns_the_gradient_has_no_scale() -> None:
    assert math.isinf(noise_scale([torch.tensor([1.0]), torch.tensor([-1.0])], 4))
