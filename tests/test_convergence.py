"""Descents reach the optimum that other methods know: L-BFGS, liblinear, the closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import ravine
from ravine import optim
from ravine.losses import binary_cross_entropy, mse
from ravine.optim import Adam, GradientDescent, Momentum
from ravine.regularize import decay_groups
from ravine.schedules import constant, cosine

L2, L1 = 1e-2, 0.1


@pytest.fixture(scope="module")
def cancer() -> tuple[Tensor, Tensor]:
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return torch.from_numpy(X), torch.from_numpy(y).double()[:, None]


def objective(packed: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean logistic loss + L2 sum w^2, bias free of it, and the gradient: written by hand."""
    w, b = packed[:-1], packed[-1]
    z = X @ w + b
    sign = 2 * y - 1
    loss = np.logaddexp(0, -sign * z).mean() + L2 * (w @ w)
    residual = -sign / (1 + np.exp(sign * z)) / len(y)
    return loss, np.append(X.T @ residual + 2 * L2 * w, residual.sum())


@pytest.fixture(scope="module")
def optimum(cancer: tuple[Tensor, Tensor]) -> tuple[float, np.ndarray]:
    X, y = cancer[0].numpy(), cancer[1].numpy()[:, 0]
    point = np.zeros(31)
    found = minimize(
        objective,
        point,
        (X, y),
        "L-BFGS-B",
        jac=True,
        options={"maxiter": 5000, "maxcor": 30, "ftol": 0, "gtol": 1e-9},
    )
    point = found.x
    for _ in range(5):  # Newton's steps take the gradient from 1e-8 to rounding
        z = X @ point[:-1] + point[-1]
        p = 1 / (1 + np.exp(-z))
        wide = np.column_stack([X, np.ones(len(X))])
        hessian = wide.T @ (wide * (p * (1 - p))[:, None]) / len(y)
        hessian[np.arange(30), np.arange(30)] += 2 * L2
        point = point - np.linalg.solve(hessian, objective(point, X, y)[1])
    loss, gradient = objective(point, X, y)
    assert np.linalg.norm(gradient) < 1e-12
    assert found.fun == pytest.approx(loss, abs=1e-12)
    return loss, point


def descend(
    model: nn.Linear, optimizer: optim.Optimizer, data: tuple[Tensor, Tensor], steps: int
) -> None:
    X, y = data
    for _ in range(steps):
        optimizer.zero_grad()
        binary_cross_entropy(model(X), y).backward()
        optimizer.step()


def at_zero(columns: int = 30, bias: bool = True) -> nn.Linear:
    model = nn.Linear(columns, 1, bias=bias).double()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    return model


def packed(model: nn.Linear) -> np.ndarray:
    return torch.cat([model.weight[0], model.bias]).detach().numpy()


# The largest curvature is 13.3 / 4 + 2 L2, so that 0.5 descends; the smallest is near 2 L2.
DESCENTS: dict[str, tuple[Callable[[Any], optim.Optimizer], int]] = {
    "gradient descent": (lambda g: GradientDescent(g, lr=0.5), 1500),
    "momentum": (lambda g: Momentum(g, lr=5.0, beta=0.9), 400),
    "adam": (lambda g: Adam(g, lr=constant(0.05, 200) >> cosine(800, peak=0.05)), 1000),
}


@pytest.mark.parametrize("name", DESCENTS)
def test_logistic_regression_reaches_the_optimum_of_l_bfgs(
    name: str, cancer: tuple[Tensor, Tensor], optimum: tuple[float, np.ndarray]
) -> None:
    make, steps = DESCENTS[name]
    model = at_zero()
    descend(model, make(decay_groups(model, l2=L2)), cancer, steps)
    X, y = cancer[0].numpy(), cancer[1].numpy()[:, 0]
    reached, _ = objective(packed(model), X, y)
    assert reached - optimum[0] < 1e-8
    assert np.allclose(packed(model), optimum[1], atol=1e-6)


def test_train_reaches_it_too_with_the_bias_left_out_of_the_penalty(
    cancer: tuple[Tensor, Tensor], optimum: tuple[float, np.ndarray]
) -> None:
    task = ravine.Task(model=at_zero(), loss="binary_cross_entropy", train=cancer)
    record = ravine.train(task, f"gradient_descent(lr=0.5, l2={L2})", batch_size="all", epochs=1500)
    assert record.facts["steps"] == 1500
    assert np.allclose(packed(record.model), optimum[1], atol=1e-6)


# The L1 optimum


@pytest.mark.parametrize(
    "make",
    [
        lambda w: GradientDescent(w, lr=1.2, l1=L1, l1_proximal=True),
        lambda w: Momentum(w, lr=4.0, beta=0.9, l1=L1, l1_proximal=True),
    ],
    ids=["gradient descent", "momentum"],
)
def test_the_proximal_step_has_exact_zeros_where_liblinear_has_them(
    make: Callable[[Any], optim.Optimizer], cancer: tuple[Tensor, Tensor]
) -> None:
    # Ten columns: the thirty are so alike that plain descent takes a hundred thousand steps.
    data = cancer[0][:, :10].contiguous(), cancer[1]
    X, y = data[0].numpy(), data[1].numpy()[:, 0]
    peer = LogisticRegression(
        C=1 / (L1 * len(y)),
        l1_ratio=1.0,
        solver="liblinear",
        fit_intercept=False,
        tol=1e-10,
        max_iter=100_000,
        random_state=0,
    ).fit(X, y)
    model = at_zero(10, bias=False)
    descend(model, make(model.parameters()), data, 2000)
    w = model.weight[0].detach().numpy()

    assert 0 < np.count_nonzero(w) < 10
    assert np.array_equal(w == 0, peer.coef_[0] == 0)
    assert np.allclose(w, peer.coef_[0], atol=1e-7)
    # What makes it the optimum: 0 is in the subdifferential.
    sign = 2 * y - 1
    gradient = X.T @ (-sign / (1 + np.exp(sign * (X @ w)))) / len(y)
    assert np.allclose(gradient[w != 0], -L1 * np.sign(w[w != 0]), atol=1e-9)
    assert (np.abs(gradient[w == 0]) <= L1).all()


def test_the_subgradient_has_no_exact_zeros(cancer: tuple[Tensor, Tensor]) -> None:
    model = at_zero(bias=False)
    descend(model, GradientDescent(model.parameters(), lr=0.05, l1=L1), cancer, 500)
    assert (model.weight != 0).all()


# Batch, stochastic and mini-batch descent


@pytest.mark.parametrize("batch_size", ["all", 1, 8, 1000])
def test_batch_sizes_are_those_of_a_hand_written_loop(batch_size: int | str) -> None:
    random = np.random.default_rng(0)
    X, noise = random.normal(size=(30, 4)), random.normal(size=30)
    y = X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * noise
    seen: list[np.ndarray] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        rows = [int(np.flatnonzero(y == value)[0]) for value in target[:, 0].tolist()]
        seen.append(np.array(rows))
        return mse(output, target)

    model = nn.Linear(4, 1).double()
    w, b = model.weight[0].detach().numpy().copy(), model.bias.item()
    task = ravine.Task(
        model=model, loss=loss, train=(torch.from_numpy(X), torch.from_numpy(y)[:, None])
    )
    record = ravine.train(
        task, "gradient_descent(lr=0.01)", batch_size=batch_size, epochs=3, seed=5
    )

    size = 30 if batch_size in ("all", 1000) else int(batch_size)
    per_epoch = -(-30 // size)
    assert len(seen) == 3 * per_epoch == record.facts["steps"]
    orders = []
    for epoch in range(3):
        batches = seen[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert [len(rows) for rows in batches] == [size] * (30 // size) + [30 % size] * (
            30 % size > 0
        )
        orders.append(np.concatenate(batches))
        assert sorted(orders[-1]) == list(range(30))
    if size < 30:
        assert not np.array_equal(orders[0], orders[1])

    losses = []
    for rows in seen:
        error = X[rows] @ w + b - y[rows]
        losses.append(((error**2).mean(), len(rows)))
        w = w - 0.01 * 2 * X[rows].T @ error / len(rows)
        b = b - 0.01 * 2 * error.mean()
    assert np.allclose(record.model.weight[0].detach().numpy(), w, rtol=1e-12, atol=1e-13)
    assert record.model.bias.item() == pytest.approx(b, rel=1e-12)
    for epoch, row in enumerate(record.history):
        part = losses[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert row["train/loss"] == pytest.approx(sum(v * n for v, n in part) / 30, rel=1e-12)
