"""The cross-entropy kernels over rows against torch in float64, mpmath and the plain reference."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ravine.engine import machine_code
from ravine.engine.element_types import number_type
from ravine.errors import TargetError
from ravine.losses.cross_entropy_reference import check_targets, rows_loss
from ravine.losses.kernels import cross_entropy_cpu
from ravine.losses.kernels.cross_entropy_cpu import rows_loss_and_gradient

INF, NAN = torch.inf, torch.nan
# Relative error of the loss and of the slope (d is rounded, so exp(d) is off by abs(d) eps / 2),
# then the absolute one of the slope: smoothing makes it a difference, and float16 has subnormals.
TYPES = {
    torch.float32: (1e-6, 3e-6, 6e-8),
    torch.float64: (2e-15, 2e-14, 1.2e-16),
    torch.bfloat16: (1e-6, 2.0**-8 + 3e-6, 6e-8),
    torch.float16: (1e-6, 2.0**-11 + 3e-6, 1e-7),
}


def kernel(x: Tensor, y: Tensor, **options) -> tuple[Tensor, Tensor]:
    gradient = torch.full_like(x, NAN)
    return rows_loss_and_gradient(x, y, gradient=gradient, **options), gradient


def case(kind: torch.dtype, rows: int, classes: int, soft: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rows + classes)
    x = (torch.randn(rows, classes) * 3).to(kind)
    if soft:
        return x, torch.softmax(torch.randn(rows, classes), 1).to(number_type(kind))
    return x, torch.randint(classes, (rows,))


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_against_torch_in_float64(kind: torch.dtype, soft: bool) -> None:
    value, slope, tiny = TYPES[kind]
    shapes = [(1, 1), (3, 2), (130, 10), (64, 64), (70, 65), (5, 127), (3, 300), (2, 2100)]
    for (rows, classes), epsilon, weighted in itertools.product(shapes, (0.0, 0.1), (False, True)):
        x, y = case(kind, rows, classes, soft)
        weight = torch.rand(classes, dtype=number_type(kind)) + 0.1 if weighted else None
        loss, gradient = kernel(x, y, class_weight=weight, label_smoothing=epsilon, scale=0.5)
        wide = x.double().clone().requires_grad_()
        exact = F.cross_entropy(
            wide,
            y.double() if soft else y,
            weight=None if weight is None else weight.double(),
            label_smoothing=epsilon,
            reduction="none",
        )
        (0.5 * exact.sum()).backward()
        torch.testing.assert_close(loss.double(), exact.detach(), rtol=value, atol=value)
        torch.testing.assert_close(gradient.double(), wide.grad, rtol=slope, atol=tiny)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("classes", [10, 200])
def test_against_the_reference(classes: int, soft: bool) -> None:
    x, y = case(torch.float64, 150, classes, soft)
    if not soft:
        y[::7] = -100
    x[::11, 3] = -INF
    sample = torch.rand(150, dtype=torch.float64)
    sample[5] = 0
    options = {
        "class_weight": torch.rand(classes, dtype=torch.float64),
        "sample_weight": sample,
        "label_smoothing": 0.2,
    }
    if soft:
        y[::11, 3] = 0
    else:
        y[y == 3] = 4
    loss, gradient = kernel(x, y, **options)
    x.requires_grad_()
    exact = rows_loss(x, y, **options)
    exact.sum().backward()
    assert exact.isfinite().all()
    torch.testing.assert_close(loss, exact.detach(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-14, atol=1e-15)


def test_the_reference_is_differentiable_twice() -> None:
    x, y = case(torch.float64, 4, 5, False)
    y[1] = -100
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: rows_loss(z, y, label_smoothing=0.1), x)
    assert torch.autograd.gradgradcheck(lambda z: rows_loss(z, y, label_smoothing=0.1), x)


@pytest.mark.parametrize("classes", [3, 100])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [0.5, 17.0, 30.0, 80.0])
def test_certain_rows_keep_their_digits(kind: torch.dtype, classes: int, lead: float) -> None:
    x = torch.zeros(1, classes, dtype=kind)
    x[0, 0] = lead
    with mpmath.workdps(50):
        others = (classes - 1) * mpmath.exp(-mpmath.mpf(lead))
        exact_loss = float(mpmath.log1p(others))
        exact_slope = float(-others / (1 + others))
    tolerance = 4 * torch.finfo(kind).eps
    for y in (torch.tensor([0]), F.one_hot(torch.tensor([0]), classes).to(kind)):
        loss, gradient = kernel(x, y)
        assert loss.item() == pytest.approx(exact_loss, rel=tolerance, abs=0)
        assert gradient[0, 0].item() == pytest.approx(exact_slope, rel=tolerance, abs=0)
        assert gradient[0, 1].item() == pytest.approx(
            -exact_slope / (classes - 1), rel=tolerance, abs=0
        )


@pytest.mark.parametrize("classes", [4, 90])
def test_slope_near_one_in_bfloat16(classes: int) -> None:
    x = torch.zeros(1, classes, dtype=torch.bfloat16)
    x[0, 1] = 12
    _, gradient = kernel(x, torch.tensor([1]))
    others = (classes - 1) * mpmath.exp(-12)
    exact = float(-others / (1 + others))
    assert gradient[0, 1].item() == pytest.approx(exact, rel=2.0**-8, abs=0)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("classes", [4, 130])
def test_infinite_and_huge_logits(kind: torch.dtype, classes: int) -> None:
    huge = 6e4 if kind == torch.float16 else 1e9
    x = torch.zeros(7, classes, dtype=kind)
    x[0, 1:] = -INF  # only class 0 is possible
    x[1, 1] = -INF  # the target is impossible
    x[2, 0] = INF
    x[3, 1] = INF
    x[4] = -INF
    x[5, 0], x[5, 1] = huge, -huge
    x[6, 0], x[6, 1] = -huge, huge
    loss, gradient = kernel(x, torch.tensor([0, 1, 0, 0, 0, 0, 0]))
    top = float(x[6, 1]) - float(x[6, 0])
    expected = [0, INF, 0, INF, float(torch.tensor(float(classes)).log()), 0, top]
    torch.testing.assert_close(loss.double(), torch.tensor(expected).double(), rtol=1e-6, atol=0)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.double().sum(1), torch.zeros(7).double(), rtol=0, atol=0.02)
    smooth, slopes = kernel(x[:1], torch.tensor([0]), label_smoothing=0.1)
    assert smooth.item() == 0  # smoothing gives nothing to impossible classes
    assert (slopes == 0).all()


@pytest.mark.parametrize("classes", [5, 100, 3000])
def test_nan_in_a_row_stays_in_that_row(classes: int) -> None:
    x = torch.zeros(3, classes)
    x[1, classes // 2] = NAN
    loss, gradient = kernel(x, torch.tensor([0, 1, 2]))
    assert loss.isnan().tolist() == [False, True, False]
    assert gradient.isnan().all(1).tolist() == [False, True, False]
    assert not gradient[::2].isnan().any()


@pytest.mark.parametrize("classes", [5, 100])
def test_rows_that_do_not_count_are_exactly_zero(classes: int) -> None:
    x = torch.full((4, classes), NAN)
    x[3] = 0
    for y, sample in (
        (torch.tensor([-100, -100, -100, 0]), None),
        (torch.zeros(4, dtype=torch.int64), torch.tensor([0.0, 0.0, 0.0, 1.0])),
        (torch.full((4, classes), 1 / classes), torch.tensor([0.0, 0.0, 0.0, 1.0])),
    ):
        loss, gradient = kernel(x, y, sample_weight=sample, label_smoothing=0.1)
        assert (loss[:3] == 0).all()
        assert (gradient[:3] == 0).all()
        assert loss[3] > 0
        assert gradient[3].isfinite().all()
        torch.testing.assert_close(rows_loss(x, y, sample_weight=sample, label_smoothing=0.1), loss)


@pytest.mark.parametrize("classes", [5, 100, 1030])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_value_alone_is_the_same(kind: torch.dtype, classes: int) -> None:
    x, y = case(kind, 40, classes, False)
    torch.testing.assert_close(rows_loss_and_gradient(x, y), kernel(x, y)[0], rtol=3e-7, atol=3e-7)


def test_empty_batch() -> None:
    loss, gradient = kernel(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert loss.shape == (0,)
    assert gradient.shape == (0, 3)
    assert check_targets(torch.empty(0, dtype=torch.int64), 3) is None


@pytest.mark.parametrize("classes", [10, 700])
def test_threads_give_the_same_bits(classes: int) -> None:
    x, y = case(torch.float32, 3000, classes, False)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(kernel(x, y, label_smoothing=0.1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_check_targets() -> None:
    assert check_targets(torch.tensor([0, 2, 1]), 3) is None
    kept = check_targets(torch.tensor([0, -100, 1]), 3)
    assert kept is not None
    assert kept.tolist() == [True, False, True]
    valid = check_targets(torch.tensor([0, 2, 1]), 3, ignore_index=2)
    assert valid is not None
    assert valid.tolist() == [True, False, True]
    with pytest.raises(TargetError, match=r"(?s)row 2 of 4 \(2 such rows\).*class 3.*0 \.\. 2"):
        check_targets(torch.tensor([0, 2, 3, -1]), 3)


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is of POSIX")
@pytest.mark.parametrize("shape", [(3, 700), (67, 10), (70, 33)])  # lines asked for ahead, tiles
@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_nothing_behind_the_last_row_is_read_or_written(
    kind: torch.dtype, shape: tuple[int, int]
) -> None:
    rows, classes = shape
    size = rows * classes * kind.itemsize
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    x, y = case(kind, rows, classes, False)
    expected, slope = kernel(x, y)
    with guarded(whole) as one, guarded(whole) as other:
        at_end = [
            torch.frombuffer(memory, dtype=kind, count=rows * classes, offset=whole - size)
            for memory in (one, other)
        ]
        scores, gradient = (numbers.view(rows, classes).zero_() for numbers in at_end)
        scores.copy_(x)
        found = rows_loss_and_gradient(scores, y, gradient=gradient)
        assert torch.equal(found, expected)
        assert torch.equal(gradient, slope)


@contextmanager
def guarded(size: int) -> Iterator[Any]:
    """Give memory before a page that may neither be read nor written."""
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    inside = (ctypes.c_char * size).from_buffer(memory)
    behind = ctypes.c_void_p(ctypes.addressof(inside) + size)
    protect = ctypes.CDLL(None).mprotect
    assert protect(behind, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    yield inside
    assert protect(behind, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE) == 0


@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=str)
def test_rows_turned_tile_by_tile_or_number_by_number(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(1, 1), (64, 16), (67, 10), (130, 33), (3, 64), (65, 8)]
    cases = [case(kind, *shape, soft) for shape in shapes for soft in (False, True)]
    found = []
    for tiles in (True, False):
        monkeypatch.setattr(machine_code, "turns_tiles", lambda tiles=tiles: tiles)
        cross_entropy_cpu._kernel.cache_clear()
        found.append([kernel(*one, label_smoothing=0.1) for one in cases])
    cross_entropy_cpu._kernel.cache_clear()
    for (loss, slope), (same_loss, same_slope) in zip(*found, strict=True):
        assert torch.equal(loss, same_loss)
        assert torch.equal(slope, same_slope)
