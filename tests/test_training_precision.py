"""Steps in fewer bits, against loops written by hand with torch's own parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import mlp, numbers, same, task, weights

import ravine
from ravine.data import epoch_order
from ravine.errors import ResumeError, UnknownNameError
from ravine.training.devices.precision import Precision

EPOCHS, SIZE, SEED = 3, 16, 5
Maker = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Maker] = {
    "ours": lambda params: ravine.optim.Adam(params, lr=0.05),
    "torch": lambda params: torch.optim.Adam(params, lr=0.05, foreach=False),
}


def by_hand(made: ravine.Task, maker: Maker, dtype: torch.dtype, loss: Any) -> tuple[Any, ...]:
    """The loop of torch's documentation: autocast, GradScaler, step, update."""
    net = mlp()
    net.load_state_dict(made.model.state_dict())
    optimizer = maker(net.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    losses, scales = [], []
    X, y = made.train  # type: ignore[misc]
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for rows in epoch_order(len(X), SEED, epoch).split(SIZE):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype):
                value = loss(net(X[rows]).float(), y[rows])
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            total += value.item() * len(rows)
            scales.append(scaler.get_scale())
        losses.append(total / len(X))
    return weights(net), losses, scales


def run(made: ravine.Task, maker: Maker, precision: str, **settings: Any) -> ravine.Record:
    return ravine.train(
        made, maker, precision=precision, batch_size=SIZE, epochs=EPOCHS, seed=SEED, **settings
    )


@pytest.mark.parametrize("maker", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_bits_of_a_loop_by_hand(maker: Maker, precision: str) -> None:
    made = task(loss=nn.functional.cross_entropy)
    expected, losses, _ = by_hand(
        made, maker, getattr(torch, precision), nn.functional.cross_entropy
    )
    record = run(made, maker, precision)
    assert same(weights(record.model), expected)
    assert record.history.column("train/loss") == losses
    assert all(weight.dtype is torch.float32 for weight in record.model.parameters())
    full = run(made, maker, "float32")
    assert not same(weights(full.model), expected)


class Steep(nn.Module):
    """A loss whose gradients are not finite in float16 as long as the scale is above 2^9."""

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(_Times.apply(output, 2.0**8), targets)


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, times: float) -> Tensor:
        ctx.times = times
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.times, None


@pytest.mark.parametrize("maker", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_that_overflow_are_left_out_and_counted(maker: Maker) -> None:
    made = task(loss=Steep())
    expected, losses, scales = by_hand(made, maker, torch.float16, Steep())
    record = run(made, maker, "float16")
    left_out = sum(b < a for a, b in zip([65536.0, *scales], scales, strict=False))
    assert 1 <= left_out < len(scales)
    assert record.facts["skipped_steps"] == left_out
    assert same(weights(record.model), expected)
    assert record.history.column("train/loss") == losses


@pytest.mark.parametrize("maker", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_norm_that_is_told_is_that_of_the_gradient(maker: Maker) -> None:
    made = task(loss=nn.functional.cross_entropy)
    scaled, full = (run(made, maker, name) for name in ("float16", "float32"))
    for one, other in zip(scaled.history, full.history, strict=True):
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=0.1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_resumed_run_has_the_same_bits(precision: str, tmp_path: Path) -> None:
    made = task(loss=Steep())
    settings: dict[str, Any] = {"precision": precision, "batch_size": SIZE}
    whole = ravine.train(made, "adam(lr=0.05)", epochs=4, **settings)
    ravine.train(made, "adam(lr=0.05)", epochs=1, run_dir=tmp_path, **settings)
    resumed = ravine.train(made, resume=tmp_path, epochs=4)
    assert same(weights(resumed.model), weights(whole.model))
    assert str(numbers(resumed.history)) == str(numbers(whole.history))  # a norm may be NaN
    assert resumed.facts.get("skipped_steps") == whole.facts.get("skipped_steps")


def test_with_parts_and_the_loss_is_in_float32() -> None:
    seen = []

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        seen.append(output.dtype)
        return ravine.losses.cross_entropy(output, targets)

    record = ravine.train(task(loss=loss), precision="bfloat16", accumulate=2, epochs=1)
    assert set(seen) == {torch.float32}
    assert record.metrics["train/loss"] > 0


def test_another_precision_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown precision 'bfloat'(.|\n)*bfloat16"):
        ravine.train(task(), precision="bfloat")


def test_a_run_keeps_its_precision(tmp_path: Path) -> None:
    ravine.train(task(), epochs=1, run_dir=tmp_path, precision="bfloat16")
    with pytest.raises(ResumeError, match=r"precision differs(.|\n)*float32(.|\n)*bfloat16"):
        ravine.train(task(), resume=tmp_path, precision="float32")


def test_the_way_back_is_that_of_torch() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    for loss in (weight.square().sum(), weight.prod().double()):
        weight.grad = None
        loss.backward(retain_graph=True)
        wanted = weight.grad
        weight.grad = None
        Precision().backward(loss)
        assert torch.equal(weight.grad, wanted)
        Precision().backward((weight * 1.0).sum())  # added to what is there
        assert torch.equal(weight.grad, wanted + 1.0)
    for bad in (weight * 1.0, (weight * 1.0).sum().detach(), (weight * 1j).sum()):
        with pytest.raises(RuntimeError) as torchs:
            bad.backward()
        with pytest.raises(RuntimeError) as ours:
            Precision().backward(bad)
        assert str(ours.value) == str(torchs.value)
