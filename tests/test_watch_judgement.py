"""What a watch concludes: the loss that rises behind a step, and what only looks like a fault."""

from __future__ import annotations

import pytest
import torch
from test_watch import mlp, watched
from torch import nn
from torch.nn import functional as F
from training_cases import points

from ravine.watch.watcher import Watch


def test_a_loop_that_has_arrived_is_no_step_without_effect() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    X = torch.linspace(-1, 1, 8)[:, None]
    lengths: list[float] = []

    def run() -> None:
        for _ in range(400):
            optimizer.zero_grad()
            F.mse_loss(model(X), 3 * X + 1).backward()
            optimizer.step()

    w = watched(model, optimizer, run)
    lengths += [seen.gradient_norm for seen in w.history if not seen.moved]
    assert len(lengths) > 20
    assert max(lengths) > 0  # else nothing was tested
    assert w.findings == []


def test_a_loss_that_rises_behind_a_step_too_far_is_lr_too_high() -> None:
    X, y = points(64)

    def run(lr: float) -> Watch:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        with Watch(model, optimizer, every=4, warn=False) as w:
            for _ in range(40):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(X), y)
                loss.backward()
                optimizer.step()
                w.observe(loss)
        return w

    assert run(0.5).findings == []
    found = run(300.0)
    assert [f.name for f in found.findings][:1] == ["lr-too-high"]
    first, lr = found.history[0], 300.0
    # Plain gradient descent promises lr |g|^2.
    assert first.promised == pytest.approx(lr * first.gradient_norm**2, rel=1e-5)
