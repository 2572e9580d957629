"""Cross-entropy on the GPU: its numbers against float64; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from gpu_row_support import (
    INF,
    NAN,
    TYPES,
    assert_near,
    classes_of,
    exact,
    numbers,
    on_the_gpu,
    value_and_gradient,
    wide_of,
)
from gpu_support import DEVICE

from ravine.losses import executors
from ravine.losses.kernels import row_launch

assert on_the_gpu
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(1, torch.float32), (2, torch.float16), (1000, torch.bfloat16)]
    + [(classes, dtype) for classes in (10, 1025) for dtype in TYPES],
)
def test_against_float64(classes, dtype, monkeypatch):
    if classes == 1025:  # in tiles
        monkeypatch.setattr(row_launch, "WIDEST", 512)
    rows = 130 if classes == 10 else 3
    x, target = 3 * numbers(rows, classes, dtype=dtype), classes_of(rows, classes)
    wide = wide_of(dtype)
    weight = numbers(rows, seed=3, dtype=wide).abs()
    weight[1] = 0
    some = target.clone()
    some[0] = -100
    of_class = numbers(classes, seed=4, dtype=wide).abs()
    chances = numbers(rows, classes, seed=5, dtype=wide).softmax(1)
    chances[2] *= torch.arange(classes, device=DEVICE) % 2
    for given, options in [
        ((target,), {}),
        ((some,), {"class_weight": of_class}),
        ((some,), {"weight": weight, "class_weight": of_class, "label_smoothing": 0.1}),
        ((chances,), {"weight": weight}),
        ((chances,), {"class_weight": of_class, "label_smoothing": 0.25}),
    ]:
        upstream = 3.0 if "weight" in options else 1.0
        got = value_and_gradient(x, *given, upstream=upstream, **options)
        want = exact(x, *given, upstream=upstream, **options)
        assert got[0].dtype is wide and got[1].dtype is dtype
        assert_near(got[0], want[0], dtype)
        assert_near(got[1], want[1], dtype)
        left = torch.zeros(rows, dtype=torch.bool, device=DEVICE)
        left[1] = "weight" in options
        left[0] = given[0] is some
        assert not got[1][left].any()


def test_against_torch():
    x, target = numbers(6, 300, dtype=torch.float64), classes_of(6, 300)
    target[2] = 7
    of_class = numbers(300, seed=4, dtype=torch.float64).abs()
    other = x.clone().requires_grad_()
    want = torch.nn.functional.cross_entropy(
        other, target, of_class, ignore_index=7, label_smoothing=0.2
    )
    want.backward()
    got, gradient = value_and_gradient(
        x, target, class_weight=of_class, ignore_index=7, label_smoothing=0.2
    )
    torch.testing.assert_close(got, want.detach(), rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, other.grad, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("classes", [2, 3, 200])
def test_confident_rows_to_the_last_places(classes, place, monkeypatch):
    """Also where the largest logit comes in the last of several tiles, and moves what is there."""
    monkeypatch.setattr(row_launch, "WIDEST", 64)
    heights = torch.tensor([0.25, 3.0, 9.5, 17.0, 30.125, 60.0, 80.0], device=DEVICE)
    x = torch.zeros(len(heights), classes, device=DEVICE)
    own = 0 if place == "first" else classes - 1
    x[:, own] = heights
    x[:, classes - 1 - own] -= 0.5
    target = torch.full((len(heights),), own, device=DEVICE)
    value, gradient = value_and_gradient(x, target, reduction="none")
    d = x.double() - heights.double()[:, None]
    d[:, own] = -INF
    others = d.exp().sum(1)
    for got, want in [
        (value, others.log1p()),
        (gradient[:, own], -others / (1 + others)),
        (gradient[:, 1 - min(own, 1)], d[:, 1 - min(own, 1)].exp() / (1 + others)),
    ]:
        unit = torch.nextafter(want.float().abs(), torch.tensor(INF, device=DEVICE)).double()
        unit -= want.float().abs().double()
        assert ((got.double() - want).abs() / unit).max() <= 4


HARD = [
    [-INF, 0.0, 1.0, -INF], [0.0, -INF, 1.0, 2.0], [INF, 0.0, 1.0, 2.0], [0.0, INF, INF, 2.0],
    [-INF] * 4, [INF] * 4, [NAN, 0.0, 1.0, 2.0], [0.0, 1.0, INF, NAN], [0.0, 1.0, -INF, NAN],
    [1e9, -1e9, 0.0, 0.0], [-1e9, 1e9, 0.0, 0.0], [3e38, -3e38, 3e38, 0.0], [6e4, -6e4, 0.0, 6e4],
    [100.0, 0.0, 0.0, 0.0], [0.0, 100.0, 0.0, 100.0], [5.0] * 4, [0.0, 1e-8, 0.0, -1e-8],
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("classes", "columns"), [(4, 4), (3, 4), (4, 2), (3, 2)])
def test_hard_rows_as_on_the_cpu(classes, columns, dtype, monkeypatch):
    """In one tile and in two, full and filled up. Other tests hold the CPU to `numerics.md`."""
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    x = torch.tensor(HARD, device=DEVICE).to(dtype)[:, :classes].contiguous()
    target = torch.zeros(len(x), dtype=torch.int64, device=DEVICE)
    chances = torch.tensor([0.5, 0.0, 0.5, 0.0], device=DEVICE)[:classes].repeat(len(x), 1)
    for given, smoothing in [(target, 0.0), (target + 1, 0.1), (chances, 0.0), (chances, 0.5)]:
        options = {"reduction": "none", "label_smoothing": smoothing}
        got = value_and_gradient(x, given, **options)
        with monkeypatch.context() as patch:
            patch.setattr(executors, "kind_of", lambda tensor: "cpu")
            want = value_and_gradient(x.cpu(), given.cpu(), **options)
        assert_near(got[0].cpu(), want[0], torch.float32)
        for one, other in zip(got[1].cpu(), want[1], strict=True):
            assert_near(one, other, dtype)
