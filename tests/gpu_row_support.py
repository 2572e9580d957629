"""What the GPU cases of losses over rows share: kernels with their launches counted, float64 references."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from gpu_support import DEVICE

from ravine.engine import gpu
from ravine.losses import cross_entropy, executors
from ravine.losses.cross_entropy_reference import rows_loss

pytest.importorskip("triton")
from ravine.losses.kernels import cross_entropy_gpu, hinge_gpu

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}
INF, NAN = math.inf, math.nan


class Counter:
    """How often kernels were launched."""

    launches = 0


class Counted:
    """A kernel whose launches are counted."""

    def __init__(self, kernel, counter):
        self.kernel, self.counter = kernel, counter

    def __getitem__(self, grid):
        self.counter.launches += 1
        return self.kernel[grid]


def take_for_a_gpu(monkeypatch):
    """Take CPU tensors of the interpreter for ones of a GPU."""
    if gpu.interpreted():
        monkeypatch.setattr(executors, "kind_of", lambda tensor: "gpu")
        for name in (
            "arguments", "class_arguments", "fused_rows", "linear_autograd", "linear_chunks",
            "linear_cross_entropy", "reduction",
        ):  # fmt: skip
            module = importlib.import_module(f"ravine.losses.{name}")
            monkeypatch.setattr(module, "is_at_hand", lambda tensor: False)


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    """Run on a GPU, or as if; all tests must have launched a kernel."""
    counter = Counter()
    for module in (cross_entropy_gpu, hinge_gpu):
        monkeypatch.setattr(module, "kernel", Counted(module.kernel, counter))
    take_for_a_gpu(monkeypatch)
    yield counter
    assert counter.launches


def numbers(*shape, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(DEVICE)


def classes_of(rows, classes, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (rows,), generator=generator).to(DEVICE)


def wide_of(dtype):
    return dtype if dtype is torch.float64 else torch.float32


def value_and_gradient(x, *rest, upstream=1.0, loss=cross_entropy, **options):
    x = x.detach().clone().requires_grad_()
    value = loss(x, *rest, **options)
    value.backward(torch.full_like(value, upstream))
    return value.detach(), x.grad


def exact(x, target, weight=None, upstream=1.0, **options):
    """Return the mean and its gradient in float64, by plain operations and autograd."""
    x = x.detach().double().requires_grad_()
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    soft = target.is_floating_point()
    factor = None if weight is None else weight.double()
    losses = rows_loss(x, target.double() if soft else target, sample_weight=factor, **wide)
    amount = torch.ones(len(x), dtype=torch.float64, device=x.device)
    if not soft:
        kept = target != options.get("ignore_index", -100)
        amount *= kept
        if "class_weight" in wide:
            amount *= wide["class_weight"][torch.where(kept, target, 0)]
    if factor is not None:
        amount = amount * factor
    value = losses.sum() / amount.sum()
    value.backward(torch.tensor(upstream, dtype=torch.float64, device=x.device))
    return value.detach(), x.grad


def assert_near(got, want, dtype):
    """Hold a value or a gradient to rounding: of its own type, and of a few sums in the wide one."""
    got, want = got.double(), want.double()
    wide = EPS[wide_of(dtype)]
    own = wide if got.ndim == 0 else torch.finfo(dtype).eps
    largest = float(want.nan_to_num(0, 0, 0).abs().max()) if want.numel() else 0.0
    # The exponential is 0 where it is not a normal float32, as that of the CPU's kernel.
    tiny = max(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps, 2.0**-126)
    torch.testing.assert_close(
        got, want, rtol=own / 2 + 8 * wide, atol=8 * wide * largest + tiny, equal_nan=True
    )
