"""Training with lean state: the loss after some steps, against the spread of seeds."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from ravine.optim import AdamW
from ravine.tasks import load_task

LEAN = ["bfloat16", "int8"]


def digits_loss(seed, steps=150, dtype=torch.float32, **options):
    """Return the loss of a small network on all digits after some steps."""
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 128), torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    ).to(dtype)  # fmt: skip
    optimizer = AdamW(model.parameters(), rounding_seed=seed, **options)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        loss = torch.nn.functional.cross_entropy(model(x[rows].to(dtype)).float(), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(x.to(dtype)).float(), y).item()


@pytest.mark.slow
def test_lean_state_stays_within_the_spread_of_seeds():
    full = torch.tensor([digits_loss(seed, lr=2e-3) for seed in range(4)])
    for state_dtype in LEAN:
        losses = [digits_loss(seed, lr=2e-3, state_dtype=state_dtype) for seed in range(4)]
        lean = torch.tensor(losses)
        assert (lean.mean() - full.mean()).abs() < full.std()
        assert (lean - full).abs().max() < full.std()  # seed by seed they hardly differ


@pytest.mark.slow
def test_bfloat16_weights_learn_with_small_steps_as_float32_weights_do():
    options = {"lr": 2e-5, "steps": 400}
    full, rounded, nearest = (
        digits_loss(0, **options, dtype=dtype, stochastic_rounding=rounding)
        for dtype, rounding in (
            (torch.float32, False), (torch.bfloat16, True), (torch.bfloat16, False),
        )
    )  # fmt: skip
    start = digits_loss(0, lr=0.0, steps=1)
    assert start - full > 0.1
    assert abs(rounded - full) < 0.1 * (start - full)
    assert abs(nearest - full) > 0.2 * (start - full)


def text_loss(seed, state_dtype, steps=20):
    """Return the mean loss of the last steps of a short run on the text task."""
    task = load_task("text", seed)
    torch.manual_seed(seed)
    inputs, targets = task.train
    betas = (0.9, 0.98)
    optimizer = AdamW(
        task.model.parameters(), lr=2e-3, betas=betas, clip_norm=1.0, state_dtype=state_dtype
    )
    losses = []
    for _ in range(steps):
        rows = torch.randint(0, len(inputs), (8,))
        scores = task.model(inputs[rows])
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, -2), targets[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


@pytest.mark.slow
def test_the_text_task_with_int8_state():
    full = torch.tensor([text_loss(seed, "float32") for seed in range(3)])
    lean = torch.tensor([text_loss(seed, "int8") for seed in range(3)])
    assert (lean.mean() - full.mean()).abs() < full.std()
