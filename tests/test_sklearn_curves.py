"""scikit-learn's MLPClassifier on digits, step by step: its start, its order, its loss curve.

The peer runs in the test itself; the figures at the end are those that it was known to give before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import shuffle
from torch import Tensor, nn

from ravine import optim
from ravine.losses import cross_entropy
from ravine.regularize import decay_groups

EPOCHS, BATCH, ALPHA, HIDDEN = 15, 200, 1e-4, 100

# scikit-learn's options, the optimizer, the published final loss and score
CASES: dict[str, tuple[dict[str, Any], Callable[[Any], optim.Optimizer], float, float]] = {
    "sgd": (
        {"solver": "sgd", "learning_rate_init": 0.2, "momentum": 0},
        lambda groups: optim.SGD(groups, lr=0.2),
        0.243802,
        0.956038,
    ),
    "momentum": (
        {
            "solver": "sgd",
            "learning_rate_init": 0.2,
            "momentum": 0.9,
            "nesterovs_momentum": False,
        },
        lambda groups: optim.SGD(groups, lr=0.2, momentum=0.9),
        0.041297,
        0.992766,
    ),
    "nesterov": (
        {"solver": "sgd", "learning_rate_init": 0.2, "momentum": 0.9, "nesterovs_momentum": True},
        lambda groups: optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True),
        0.042898,
        0.993879,
    ),
    "adam": (
        {"solver": "adam", "learning_rate_init": 0.01},
        lambda groups: optim.Adam(groups, lr=0.01),
        0.045934,
        0.991653,
    ),
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return MinMaxScaler().fit_transform(X), y


def peer(digits: tuple[np.ndarray, np.ndarray], **options: Any) -> MLPClassifier:
    made = MLPClassifier(max_iter=EPOCHS, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 15 epochs are meant
        return made.fit(*digits)


def start_and_order(X: np.ndarray) -> tuple[list[np.ndarray], Iterator[np.ndarray]]:
    """scikit-learn's draws: Glorot's uniform weights and biases, then an order for every epoch."""
    random = np.random.RandomState(0)
    drawn = []
    for rows, columns in ((X.shape[1], HIDDEN), (HIDDEN, 10)):
        bound = math.sqrt(6 / (rows + columns))
        drawn += [random.uniform(-bound, bound, (rows, columns))]
        drawn += [random.uniform(-bound, bound, columns)]

    def orders() -> Iterator[np.ndarray]:
        order = np.arange(len(X))
        while True:
            order = shuffle(order, random_state=random)
            yield order

    return drawn, orders()


def network(drawn: list[np.ndarray]) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10)).double()
    with torch.no_grad():
        for weight, value in zip(model.parameters(), drawn, strict=True):
            weight.copy_(torch.from_numpy(value.T.copy()))
    return model


def penalty(model: nn.Sequential) -> Tensor:
    return sum((layer.weight**2).sum() for layer in model if isinstance(layer, nn.Linear))


def curve(
    model: nn.Sequential,
    optimizer: optim.Optimizer,
    data: tuple[np.ndarray, np.ndarray],
    orders: Iterator[np.ndarray],
) -> list[float]:
    """Train as scikit-learn does, its penalty inside our step; its loss of every epoch."""
    X, y = map(torch.from_numpy, data)
    losses, step = [], 0
    for _ in range(EPOCHS):
        order = torch.from_numpy(next(orders))
        total = 0.0
        for rows in order.split(BATCH):
            step += 1
            n = len(rows)
            optimizer.param_groups[0]["l2"] = ALPHA / (2 * n)
            if "beta2" in optimizer.param_groups[0] or "betas" in optimizer.param_groups[0]:
                for group in optimizer.param_groups:  # scikit-learn's eps is that of the paper
                    group["eps"] = 1e-8 / math.sqrt(1 - 0.999**step)
            loss = cross_entropy(model(X[rows]), y[rows])
            total += (loss.item() + ALPHA / (2 * n) * penalty(model).item()) * n
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(total / len(X))
    return losses


@pytest.mark.parametrize("name", CASES)
def test_the_curve_is_that_of_scikit_learn(
    name: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    options, make, published_loss, published_score = CASES[name]
    known = peer(digits, **options)
    drawn, orders = start_and_order(digits[0])
    model = network(drawn)
    losses = curve(model, make(decay_groups(model, l2=ALPHA)), digits, orders)

    assert losses == pytest.approx(known.loss_curve_, rel=1e-9)
    for layer, weights, biases in zip(
        (model[0], model[2]), known.coefs_, known.intercepts_, strict=True
    ):
        assert np.allclose(layer.weight.detach().numpy().T, weights, rtol=1e-7, atol=1e-9)
        assert np.allclose(layer.bias.detach().numpy(), biases, rtol=1e-7, atol=1e-9)

    X, y = map(torch.from_numpy, digits)
    score = (model(X).argmax(1) == y).double().mean().item()
    assert round(losses[-1], 6) == published_loss
    assert round(score, 6) == published_score


def test_the_start_is_that_of_scikit_learn(digits: tuple[np.ndarray, np.ndarray]) -> None:
    # A learning rate so small that no weight changes leaves the weights of the start.
    still = peer(digits, solver="sgd", learning_rate_init=1e-300, momentum=0)
    drawn, _ = start_and_order(digits[0])
    assert all(map(np.array_equal, drawn[0::2], still.coefs_))
    assert all(map(np.array_equal, drawn[1::2], still.intercepts_))
