"""The regularisers that act while a run trains, against loops written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from training_cases import line, numbers, same, task, weights

import ravine
from ravine.errors import ExpressionError
from ravine.regularize import REGULARIZERS, Dropout, reestimate_batch_norm
from ravine.training.events import EpochDone

WHOLE: dict[str, Any] = {"batch_size": "all", "epochs": 3, "seed": 5}


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_its_algorithm(adaptive: bool) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    made = line(model=model)
    record = ravine.train(made, "sgd(lr=0.1)", **WHOLE, regularize=f"sam(0.3, adaptive={adaptive})")
    X, y = made.train
    losses = []
    for _ in range(3):
        loss = F.mse_loss(model(X), y)
        losses.append(loss.item())
        first = torch.autograd.grad(loss, list(model.parameters()))
        buffers = [buffer.clone() for buffer in model.buffers()]
        pairs = list(zip(model.parameters(), first, strict=True))
        size = sum(((w.abs() if adaptive else 1) * g).square().sum() for w, g in pairs).sqrt()
        kept = [w.detach().clone() for w in model.parameters()]
        with torch.no_grad():
            for w, g in pairs:
                w.add_(0.3 * (w**2 if adaptive else 1) * g / size)
        second = torch.autograd.grad(F.mse_loss(model(X), y), list(model.parameters()))
        with torch.no_grad():
            for w, old, g in zip(model.parameters(), kept, second, strict=True):
                w.copy_(old - 0.1 * g)
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                if buffer.is_floating_point():
                    buffer.copy_(old)
    for (name, found), expected in zip(
        record.model.named_parameters(), model.parameters(), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-12), name
    assert torch.allclose(record.model[1].running_var, model[1].running_var, rtol=1e-12)
    assert record.history.column("train/loss") == pytest.approx(losses, rel=1e-12)


def test_sam_stays_where_there_is_no_slope() -> None:
    flat = line(slope=0.0)
    record = ravine.train(
        ravine.Task(model=flat.model, loss="mse", train=(flat.train[0], flat.train[1] * 0)),
        "sgd(lr=0.1)",
        **WHOLE,
        regularize="sam()",
    )
    assert all(float(p.abs().max()) == 0 for p in record.model.parameters())


def test_max_norm_shortens_units_that_are_too_long_and_no_others() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ConvTranspose1d(2, 5, 3), nn.LayerNorm(4)).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    part = REGULARIZERS["max_norm"](0.5).part(seed=0)
    part.begin(model)
    part.after_step(1)
    for name, dim in (("0.weight", 0), ("1.weight", 1)):
        old, new = before[name], dict(model.named_parameters())[name]
        for unit in range(old.shape[dim]):
            was, now = old.select(dim, unit), new.select(dim, unit)
            factor = min(1.0, 0.5 / float(was.norm()))
            assert torch.allclose(now, was * factor, rtol=1e-6), (name, unit)
    for name in ("0.bias", "1.bias", "2.weight", "2.bias"):
        assert torch.equal(dict(model.named_parameters())[name], before[name])


def batch_normed(**changes: Any) -> ravine.Task:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return task(model=model, **changes)


@pytest.mark.parametrize(("start", "counted"), [(0.5, [3, 4]), (0.0, [1, 2, 3, 4]), (0.9, [4])])
def test_swa_is_the_mean_of_the_last_epochs_with_batch_norm_of_its_own(
    start: float, counted: list[int]
) -> None:
    made = batch_normed()
    seen: list[dict[str, Tensor]] = []
    models: list[nn.Module] = []
    shown = made.model.__class__.forward

    def spy(self: nn.Module, X: Tensor) -> Tensor:
        if self.training and self not in models:
            models.append(self)
        return shown(self, X)

    class Spied(nn.Sequential):
        forward = spy  # type: ignore[assignment]

    made.model.__class__ = Spied
    record = ravine.train(
        made,
        "sgd(lr=0.5)",
        batch_size=10,
        epochs=4,
        regularize=f"swa({start})",
        listeners=[lambda e: seen.append(weights(models[0])) if isinstance(e, EpochDone) else None],
    )
    made.model.__class__ = nn.Sequential
    for name, value in made.model.named_parameters():
        with torch.no_grad():
            value.copy_(torch.stack([seen[epoch - 1][name] for epoch in counted]).double().mean(0))
        assert torch.allclose(dict(record.model.named_parameters())[name], value, atol=1e-6), name
    X, _ = made.train
    inner = made.model[0](X)
    # Four batches of ten: the mean of their means is the mean of all.
    assert torch.allclose(record.model[1].running_mean, inner.mean(0), atol=1e-5)
    valid = float(F.cross_entropy(record.model(made.valid[0]), made.valid[1]))
    assert record.metrics["valid/loss"] == pytest.approx(valid, rel=1e-5)


def test_batch_norm_is_taken_anew_as_torch_does_it() -> None:
    one, other = (batch_normed().model.double() for _ in range(2))
    batches = list(torch.randn(40, 4, dtype=torch.float64).split(10))
    one.train()
    reestimate_batch_norm(one, batches)
    update_bn(batches, other)
    assert torch.allclose(one[1].running_mean, other[1].running_mean, rtol=1e-12)
    assert torch.allclose(one[1].running_var, other[1].running_var, rtol=1e-12)
    assert one.training
    assert one[1].momentum == 0.1


def test_ema_is_the_optimizers_average() -> None:
    settings: dict[str, Any] = {"batch_size": 10, "epochs": 2}
    one = ravine.train(task(), "adam(lr=0.1)", **settings, regularize="ema(0.8)")
    other = ravine.train(task(), "adam(lr=0.1, average=0.8)", **settings)
    assert same(weights(one.model), weights(other.model))


def test_dropout_follows_its_schedule() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    found: list[float] = []

    class Watched(nn.CrossEntropyLoss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            if output.requires_grad:
                found.append(next(m.p for m in holder[0].modules() if isinstance(m, Dropout)))
            return super().forward(output, target)

    class Held(nn.Sequential):
        def forward(self, X: Tensor) -> Tensor:
            holder[:] = [self]
            return super().forward(X)

    holder: list[nn.Module] = []
    ravine.train(
        task(model=Held(model), loss=Watched()),
        batch_size=10,
        epochs=2,
        regularize="dropout(linear(4, start=0.0, end=0.4))",
    )
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])


EVERY = [
    "mixup(0.4)", "sam(0.1)", "max_norm(0.8)", "swa(0.3)", "ema(0.7)",
    "dropout(linear(9, start=0.0, end=0.5))",
]  # fmt: skip


@pytest.mark.parametrize("expression", EVERY)
def test_a_resumed_run_is_the_unbroken_one(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ravine.training.keeper import Keeper

    settings: dict[str, Any] = {"batch_size": 16, "epochs": 5, "regularize": [expression]}
    whole = ravine.train(batch_normed(), "adam(lr=0.05)", **settings)
    after = Keeper.after_step

    def killed(self: Keeper) -> None:
        after(self)
        if self.loop.step == 10:
            self.store.wait()
            raise ZeroDivisionError

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Keeper, "after_step", killed)
        ravine.train(
            batch_normed(), "adam(lr=0.05)", **settings, run_dir=tmp_path, checkpoint_every=1
        )
    resumed = ravine.train(batch_normed(), resume=tmp_path)
    assert same(weights(resumed.model), weights(whole.model))
    assert numbers(resumed.history) == numbers(whole.history)


@pytest.mark.parametrize(
    "expression",
    [
        "mixup(0)",
        "sam(-1)",
        "max_norm(0)",
        "swa(1)",
        "ema(1)",
        "ema(0)",
        "dropout(linear(3, start=2, end=1))",
    ],
)
def test_values_out_of_bounds_are_refused(expression: str) -> None:
    with pytest.raises(ExpressionError, match=r"cannot be used|leaves no|keeps the first"):
        ravine.train(task(), regularize=expression)


def test_every_regularizer_has_a_row_in_the_docs() -> None:
    page = Path(__file__).parent.parent / "docs" / "regularizers.md"
    words = page.read_text(encoding="utf-8")
    assert [name for name in REGULARIZERS if f"`{name}(" not in words] == []
