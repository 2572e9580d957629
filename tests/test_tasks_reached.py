"""What the suggested settings of the built-in tasks reach, in a plain loop of torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ravine.tasks import load_task
from ravine.tasks.seeding import seeded


def _cosine(steps, end):
    return lambda step: end + (1 - end) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


# The suggested expression beside the same choice in torch. torch's Adam adds `weight_decay * w`
# to the gradient, the penalty l2 * sum(w**2) adds 2 * l2 * w.
TWINS = {
    "digits": ("adam(lr=cosine(800, peak=2e-3, end=4e-5))", {"lr": 2e-3}, _cosine(800, 0.02), 0.4),
    "digits-cnn": (
        "adam(lr=cosine(500, peak=2e-3, end=4e-5))",
        {"lr": 2e-3},
        _cosine(500, 0.02),
        0.5,
    ),
    "breast-cancer": ("adam(lr=1e-2, l2=1e-2)", {"lr": 1e-2, "weight_decay": 2e-2}, None, 0.0),
    "diabetes": ("adam(lr=1e-2)", {"lr": 1e-2}, None, 0.0),
    "wine": ("adam(lr=1e-2)", {"lr": 1e-2}, None, 0.0),
}
LOSSES = {
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "hinge": lambda output, target: F.relu(1 - target * output).mean(),
    "mse": F.mse_loss,
    "huber": F.huber_loss,
}


@pytest.fixture
def one_thread():
    """Models this small lose time to a second thread: 20 times on a machine shared with others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(task, seed):
    """Train by the task's settings; return the validation metrics after the last epoch."""
    expression, options, schedule, dropout = TWINS[task.name]
    assert task.optimizer == expression
    assert task.regularize == ((f"dropout({dropout})",) if dropout else ())
    model, loss = task.model.train(), LOSSES[task.loss]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    optimizer = torch.optim.Adam(model.parameters(), fused=True, **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))
    X, y = task.train
    with seeded(100 + seed):
        for _ in range(task.epochs):
            for rows in torch.randperm(len(X)).split(task.batch_size):
                optimizer.zero_grad()
                loss(model(X[rows]), y[rows]).backward()
                optimizer.step()
                scheduler.step()
    model.eval()
    with torch.no_grad():
        output = model(task.valid[0])
    return {
        name: float(metric(output, task.valid[1]).mean())
        for name, metric in task.metric_functions().items()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "name, loss, least",
    [
        ("digits", "cross_entropy", 0.97),
        ("digits-cnn", "cross_entropy", 0.98),
        ("breast-cancer", "binary_cross_entropy", 0.95),
        ("breast-cancer", "hinge", 0.95),
        ("wine", "cross_entropy", 0.95),
    ],
)
def test_suggested_settings_reach_the_accuracy(name, loss, least, seed):
    task = load_task(name, seed)
    task = task if task.loss == loss else task.with_loss(loss)
    assert trained(task, seed)["accuracy"] >= least


def ridge_error(task):
    """Validation error of ridge regression, its penalty chosen on the training part alone."""
    from sklearn.linear_model import RidgeCV

    X, y = (part.numpy() for part in task.train)
    fitted = RidgeCV(alphas=np.logspace(-2, 3, 26)).fit(X, y.ravel())
    guess = torch.as_tensor(fitted.predict(task.valid[0].numpy())).float()[:, None]
    return float(task.metric_functions()["squared_error"](guess, task.valid[1]).mean())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("seed", range(5))
def test_diabetes_is_level_with_ridge_regression(loss, seed):
    task = load_task("diabetes", seed).with_loss(loss)
    assert trained(task, seed)["squared_error"] < 1.1 * ridge_error(task)
