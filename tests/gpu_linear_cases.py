"""The linear head in chunks of classes on the GPU; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from gpu_support import DEVICE
from linear_class_support import add, assert_rounded, exact, put
from test_linear_classes import float32, some

from ravine.engine import gpu
from ravine.losses import (
    executors,
    linear_class_memory,
    linear_cross_entropy,
    linear_products,
    linear_seen,
    linear_state,
)
from ravine.losses.fused import HALVES
from ravine.losses.linear_chunks import Terms
from ravine.losses.linear_cross_entropy import ROWS

pytest.importorskip("triton")
from ravine.losses.kernels import linear_classes_gpu, linear_classes_triton, row_launch

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
OPTIONS = {
    "plain": {},
    "class weights": {"class_weight": torch.rand(23) * (torch.arange(23) % 3 != 0)},
    "smoothed": {"label_smoothing": 0.1, "class_weight": torch.rand(23) + 0.1},
    "soft cap": {"soft_cap": 3.0},
}


@pytest.fixture(autouse=True)
def in_chunks(monkeypatch):
    """Take CPU tensors of the interpreter for ones of a GPU; chunks of 8 classes."""
    monkeypatch.setattr(linear_class_memory, "MOST_BYTES", 0)
    monkeypatch.setattr(linear_class_memory, "TILE", 8)
    if gpu.interpreted():
        monkeypatch.setattr(executors, "kind_of", lambda tensor: "gpu")
        monkeypatch.setattr(linear_products, "serve", lambda t: t.dtype in HALVES)
        monkeypatch.setattr(linear_products, "put", put)
        monkeypatch.setattr(linear_products, "add", add)


def terms_of(options):
    values = {"class_weight": None, "label_smoothing": 0.0, "ignore_index": -100, **options}
    cap = values.pop("soft_cap", None)
    if values["class_weight"] is not None:
        values["class_weight"] = values["class_weight"].to(DEVICE)
    return Terms(ROWS, values, cap, 0.0)


def chunks_of(logits, target, bias, terms):
    """Return chunks of 6 classes as the sweep makes them: in a buffer that is wider than the last one."""
    for start in range(0, logits.shape[1], 6):
        place = slice(start, start + 6)
        space = torch.full((len(logits), 6), 7.0, device=DEVICE)
        here = space[:, : logits[:, place].shape[1]]
        here.copy_(logits[:, place])
        aim = target if target.ndim == 1 else target[:, place]
        yield linear_state.Chunk(start, 23, here, aim, bias, terms.options["class_weight"])


@pytest.mark.parametrize("columns", [4096, 4], ids=["rows in one tile", "tiles"])
@pytest.mark.parametrize(("name", "soft"), [*itertools.product(OPTIONS, [False, True])])
def test_kernels_do_what_plain_operations_do(name, soft, columns, monkeypatch):
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    if columns == 4:
        monkeypatch.setattr(row_launch, "TILE", 8)  # two rows of a program
    terms = terms_of(OPTIONS[name])
    x = 4 * torch.randn(5, 23)
    x[0, :9] = -torch.inf
    x[1] = 0
    x[1, 20] = 17
    x[2, 1:22] = 5
    x[3, 4] = torch.nan
    x[4] = -torch.inf
    x = x.to(DEVICE)
    target = torch.tensor([10, 20, 22, 0, 7], device=DEVICE)
    if soft:
        target = torch.nn.functional.softmax(3 * x.nan_to_num(0, 0, -1e9), 1)
        target[2] = torch.arange(23, device=DEVICE) == 22
    bias = None if name == "plain" else torch.randn(23, device=DEVICE)
    by_loss, by_lse = (torch.rand(5, dtype=torch.float64, device=DEVICE) for _ in range(2))
    found = []
    for kernels in (linear_classes_gpu, linear_seen):
        classes = None if soft else target
        with monkeypatch.context() as patch:
            if kernels is linear_seen:
                patch.setattr(executors, "kind_of", lambda tensor: "")
            seen = linear_seen.nothing_seen(x, classes, terms)
            for chunk in chunks_of(x, target, bias, terms):
                kernels.look(chunk, seen, terms)
            known = linear_seen.finished(seen, linear_seen.is_plain(terms, classes))
            slopes = linear_seen.slopes_of(known, by_loss, by_lse)
            made = []
            for chunk, kind in zip(chunks_of(x, target, bias, terms), itertools.cycle(HALVES)):
                memory = chunk.logits.untyped_storage()
                half = torch.empty(0, dtype=kind, device=DEVICE).set_(memory, 0, (5, 12), (12, 1))
                half = half[:, : chunk.logits.shape[1]]
                kernels.turn(chunk, slopes, terms, half)
                made.append(half.float())
            found.append((known, torch.cat(made, 1)))
    (known, slopes), (want, want_slopes) = found
    assert bool(want.losses[[0, 1, 2, 4]].isfinite().all() and want.losses[3].isnan())
    for field in ("losses", "lse", "others"):
        got, expected = getattr(known, field), getattr(want, field)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(slopes, want_slopes, rtol=2**-7, atol=1e-6, equal_nan=True)
    exact = (slopes == want_slopes) | slopes.isnan()
    assert exact.float().mean() > 0.9  # else the same but for rounding to half precision


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1, "soft_cap": 2.0, "z_loss": 0.1, "sample_weight": torch.rand(9)}],
    ids=["plain", "options"],
)
def test_whole_calls(kind, options, monkeypatch):
    launched, launch = [], linear_classes_gpu._launch
    monkeypatch.setattr(
        linear_classes_gpu, "_launch", lambda k, *rest: (launched.append(k), launch(k, *rest))
    )
    case = some(9, 21, 16, kind, **options)
    case.target[2] = -100
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in case.leaves(kind)]
    given = {k: v.to(DEVICE) if torch.is_tensor(v) else v for k, v in float32(options).items()}
    loss = linear_cross_entropy(leaves[0], leaves[1], case.target.to(DEVICE), leaves[2], **given)
    loss.backward(torch.tensor(1024.0, device=DEVICE))
    assert launched == [linear_classes_triton.look] * 3 + [linear_classes_triton.turn] * 3
    case.options = {k: v.double() if torch.is_tensor(v) else v for k, v in options.items()}
    (value, _), gradients, sums = exact(case, torch.tensor(1024.0, dtype=torch.float64))
    torch.testing.assert_close(loss.detach().cpu().double(), value, rtol=1e-6, atol=0)
    for t, want, total in zip(leaves, gradients, sums, strict=True):
        assert_rounded(t.grad.cpu(), want, total, 1e4)


def test_a_confident_row_keeps_its_digits():
    for place in (0, 20):
        weight = torch.zeros(21, 1, dtype=torch.bfloat16, device=DEVICE)
        weight[place] = 17
        hidden = torch.ones(1, 1, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
        weight.requires_grad_()
        loss = linear_cross_entropy(hidden, weight, torch.tensor([place], device=DEVICE))
        loss.backward()
        want = math.log1p(20 * math.exp(-17))
        assert loss.item() == pytest.approx(want, rel=3e-7, abs=0)
        assert weight.grad[place].item() == pytest.approx(math.expm1(-want), rel=2**-8, abs=0)
        assert hidden.grad.item() == pytest.approx(17 * math.expm1(-want), rel=2**-7, abs=0)
