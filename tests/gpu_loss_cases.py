"""Elementwise losses on the GPU executor; run by test_gpu.py in a process of its own.

Under TRITON_INTERPRET=1 the tensors are on the CPU and taken for a GPU's: their numbers are not at hand.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from gpu_support import DEVICE, reads
from loss_table import ROWS
from test_losses_numbers import KINDS, leaf, loss_of, others_of
from ulp_grid import exact_of, grid, ours, worst

from ravine import losses
from ravine.engine import gpu
from ravine.errors import TargetError
from ravine.losses import arguments, elementwise, fused, one_pass, pass_plan
from ravine.losses import reduction as reductions
from ravine.losses.hinge import binary_hinge

assert reads
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

POINTS = [row for row in ROWS if not row.rows]
EACH = pytest.mark.parametrize("row", POINTS, ids=str)
BY_LOSS = {row.loss: row for row in reversed(POINTS)}
SIZE = 1500  # a whole block and a part
HARD = (math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-40, 1.0, -17.0, 100.0, -100.0, 1e38, -1e38)
INFINITE = slice(0, len(HARD))
LEFT_OUT = slice(20, 30)


@pytest.fixture(autouse=True)
def on_the_gpu_executor(monkeypatch):
    monkeypatch.setattr(pass_plan, "executor", lambda name: gpu)
    for module in (arguments, elementwise, fused, reductions):
        monkeypatch.setattr(module, "is_at_hand", lambda tensor: False)


@pytest.fixture
def launches(monkeypatch):
    """Return the sizes of the launches that were made."""
    found = []
    run = gpu.Launch.run

    def noted(self):
        found.append(self.elements)
        run(self)

    monkeypatch.setattr(gpu.Launch, "run", noted)
    return found


def formula(row):
    return binary_hinge if row.loss == "hinge" else getattr(losses, row.loss)


def samples(row, size, kind):
    torch.manual_seed(size)
    x, y = row.samples((size,), kind)
    return x.to(DEVICE), y.to(DEVICE)


def expected(row, x, y, weight=None):
    """Return value and slope of each element by the equation on whole tensors in float64."""
    inputs = tuple(tensor.detach().double() for tensor in (x, *others_of(row, x, y)))
    loss = formula(row)
    weight = None if weight is None else weight.double()
    value, slope, *_ = loss.elements(inputs, y.double(), weight, loss.settle(row.options))
    return value, slope


def assert_close(found, exact, kind, *, tiny=2e-7):
    rtol = {torch.float64: 1e-12, torch.float32: 5e-7}.get(kind, 2e-6 + KINDS[kind][1])
    atol = 1e-13 if kind is torch.float64 else tiny
    torch.testing.assert_close(found, exact.to(found.dtype), rtol=rtol, atol=atol, equal_nan=True)


@EACH
def test_value_slope_and_weight_of_each_element(row, launches):
    x, y = samples(row, SIZE, torch.float32)
    x[INFINITE] = torch.tensor(HARD)
    weight = torch.rand(SIZE, device=DEVICE)
    weight[LEFT_OUT] = 0
    y[LEFT_OUT] = math.nan
    x[LEFT_OUT] = math.nan
    value, slope = expected(row, x, y, weight)
    z = leaf(x)
    found = loss_of(row, z, y, weight=weight, reduction="none")
    found.backward(torch.ones_like(found))
    assert launches == [SIZE]
    assert_close(found.detach(), value, torch.float32)
    assert_close(z.grad, slope, torch.float32)
    assert (found[LEFT_OUT] == 0).all() and (z.grad[LEFT_OUT] == 0).all()


@pytest.mark.parametrize(
    ("kind", "size"), [*zip(KINDS, (1, SIZE, 1023, SIZE), strict=True)], ids=str
)
@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy", "tweedie"])
def test_reductions_of_every_type(name, kind, size, launches):
    row = BY_LOSS[name]
    x, y = samples(row, size, kind)
    weight = torch.rand(size, device=DEVICE, dtype=torch.float64)
    for given, reduction in ((None, "sum"), (None, "mean"), (weight, "mean")):
        value, slope = expected(row, x, y, given)
        scale = 1.0 if reduction == "sum" else 1.0 / (size if given is None else given.sum())
        z = leaf(x)
        found = loss_of(row, z, y, weight=given, reduction=reduction)
        (3 * found).backward()
        assert found.dtype is (kind if kind is torch.float64 else torch.float32)
        assert z.grad.dtype is kind
        assert_close(found.detach(), value.sum() * scale, torch.float32)
        assert_close(z.grad, 3 * slope * scale, kind)
    half = kind in fused.HALVES  # whose slopes wait for their factor
    assert launches == [size] * (6 if half else 3)


@pytest.mark.parametrize("row", BY_LOSS.values(), ids=str)
def test_slopes_in_half_precision_are_rounded_once(row):
    """All factors come first: 1e-7 of a slope is nothing in float16, 65536 times that is something."""
    x, y = samples(row, 40, torch.float16)
    _, slope = expected(row, x, y)
    z = leaf(x)
    (loss_of(row, z, y, normalizer=1e7) * 2**16).backward()
    assert_close(z.grad, slope * (2**16 / 1e7), torch.float16)


@pytest.mark.parametrize("row", [r for r in POINTS if not formula(r).wide], ids=str)
def test_value_and_slope_within_4_ulp(row):
    """Those computed in float32; the others have 29 digits more than are kept."""
    x, y = grid(row)
    found = ours(row, x.to(DEVICE), y.to(DEVICE))
    value, slope = worst(row, x, y, found, exact_of(row, x, y))
    assert value <= 4, (value, slope)
    assert slope <= 4, (value, slope)


def test_every_tensor_that_needs_a_slope_has_one():
    x, y = torch.randn(2, 40, device=DEVICE).unbind()
    for needs in ((True, True), (False, True)):
        tensors = [x.clone(), torch.rand(40, device=DEVICE) + 0.5]
        wide = [tensor.double() for tensor in tensors]
        for one, other, need in zip(tensors, wide, needs, strict=True):
            one.requires_grad_(need), other.requires_grad_(need)
        losses.gaussian_nll(tensors[0], y, tensors[1]).backward()
        torch.nn.functional.gaussian_nll_loss(wide[0], y.double(), wide[1]).backward()
        for one, other, need in zip(tensors, wide, needs, strict=True):
            assert not need or torch.allclose(one.grad.double(), other.grad, rtol=1e-6)


def test_curvature():
    row = BY_LOSS["poisson"]
    x, y = samples(row, SIZE, torch.float32)
    found = losses.poisson.curvature(x, y)
    torch.testing.assert_close(found, x.double().exp().float(), rtol=3e-7, atol=0)


def test_memory_order_and_a_value_that_float32_cannot_hold():
    x = torch.randn(30, 50, device=DEVICE)
    y = torch.randn(50, 30, device=DEVICE).t()
    for z in (x, x.t().contiguous().t(), torch.stack([x, x], -1)[..., 0]):
        z = leaf(z)  # noqa: PLW2901
        found = losses.mse(z, y, reduction="none")
        found.sum().backward()
        torch.testing.assert_close(found, (x - y) ** 2)
        torch.testing.assert_close(z.grad, 2 * (x - y))
    large = torch.full((4,), 1.5e19, device=DEVICE)  # its square is 2.25e38
    assert losses.mse(large, torch.zeros_like(large), reduction="sum").item() == math.inf
    assert losses.mse(large, torch.zeros_like(large)).item() == pytest.approx(2.25e38, rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy"])
def test_nothing_at_all(name):
    empty = torch.zeros(0, 3, device=DEVICE, requires_grad=True)
    loss = getattr(losses, name)
    assert loss(empty, empty.detach(), reduction="none").shape == (0, 3)
    for options in ({"reduction": "sum"}, {"normalizer": 2.0}):
        found = loss(empty, empty.detach(), **options)
        found.backward()
        assert found.item() == 0 and empty.grad.shape == (0, 3)
    x = torch.ones(3, device=DEVICE, requires_grad=True)  # weights that are all 0
    found = loss(x, torch.zeros_like(x), weight=torch.zeros_like(x))
    found.backward()
    assert found.item() == 0 and x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("row", [r for r in BY_LOSS.values() if r.unusable], ids=str)
def test_elements_outside_of_the_domain(row):
    x, y = samples(row, SIZE, torch.float32)
    y[1400] = row.unusable[0]
    weight = torch.ones(SIZE, device=DEVICE)
    for given in (None, weight):
        with pytest.raises(TargetError, match=r"target\[1400\]"):
            loss_of(row, x, y, weight=given)
    weight[1400] = 0
    assert loss_of(row, x, y, weight=weight).isfinite()
    loss_of(row, x, y, check="off")


# --- waiting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", torch.float16),
        ("binary_cross_entropy", torch.float16),
        ("gaussian_nll", torch.float32),
    ],
    ids=str,
)
def test_the_host_waits_for_nothing_but_a_domain(name, kind, reads):
    row = BY_LOSS[name]
    x, y = samples(row, 100, kind)
    z = leaf(x)
    other = others_of(row, x, y)
    loss, weight = getattr(losses, name), torch.rand(100, device=DEVICE)
    reads.count = 0
    for reduction in ("none", "sum", "mean"):
        for given in (None, weight):
            found = loss(z, y, *other, weight=given, reduction=reduction, check="off")
            found.backward(torch.ones_like(found))
    amount = torch.tensor([50.0], device=DEVICE)
    doubled = loss(z, y, *other, normalizer=amount, check="off")
    assert reads.count == 0
    torch.testing.assert_close(doubled, 2 * loss(z, y, *other, check="off"))
    reads.count = 0
    loss(z, y, *other).backward()
    assert reads.count == (1 if formula(row).domains else 0)


# --- autograd's other ways -----------------------------------------------------------------------


def test_a_second_way_back_and_derivatives_of_derivatives():
    x, y = torch.randn(2, 40, device=DEVICE).unbind()
    for kind in (torch.float32, torch.float16):
        z = leaf(x.to(kind))
        found = losses.huber(z, y) * 3
        (first,) = torch.autograd.grad(found, z, retain_graph=True)
        (second,) = torch.autograd.grad(found, z)
        assert torch.equal(first, second)
    z = leaf(x.double())
    (slope,) = torch.autograd.grad(losses.log_cosh(z, y.double()), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    torch.testing.assert_close(bend, (1 - torch.tanh(z - y).detach() ** 2) / 40)
    hessian = torch.func.hessian(lambda t: losses.mse(t, y.double()))(z.detach())
    torch.testing.assert_close(hessian, torch.eye(40, device=DEVICE, dtype=torch.float64) / 20)


def test_while_a_cuda_graph_is_captured_plain_operations_run(monkeypatch):
    monkeypatch.setattr(one_pass, "is_capturing", lambda device: True)
    tensor = SimpleNamespace(is_cuda=True, device="cuda:0")
    assert one_pass._executor(None, tensor) == "reference"


@EACH
def test_those_read_nothing(row, reads, launches, monkeypatch):
    monkeypatch.setattr(one_pass, "_executor", lambda program, input: "reference")
    reads.operations += "|lift_fresh"
    x, y = samples(row, 20, torch.float32)
    z, weight = leaf(x), torch.rand(20, device=DEVICE)
    other = others_of(row, x, y)
    of_size = torch.full((), 20.0, device=DEVICE)
    reads.count = 0
    for options in ({}, {"weight": weight}, {"normalizer": of_size}):
        found = formula(row)(z, y, *other, check="off", **row.options, **options)
        found.backward()
    assert reads.count == 0 and not launches
