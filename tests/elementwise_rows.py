"""Rows of the table of losses: those of one input and one target at a time.

The oracles are torch's functions where torch has one, else the paper's formula in float64; `exact` is
the formula again at 50 digits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from elementwise_exact import (
    exact_asymmetric,
    exact_focal,
    exact_gamma,
    exact_gaussian,
    exact_kl,
    exact_log_cosh,
    exact_perceptron,
    exact_poisson,
    exact_quantile,
    exact_smooth_l1,
    exact_squared_hinge,
    exact_tweedie,
)
from loss_row import INF, LOGITS, Pair, Row, probabilities, regression, signs
from torch import Tensor

ERRORS = tuple(((x,), y) for x in LOGITS for y in (0.0, 0.5))


def spread(x: Tensor, y: Tensor) -> Tensor:
    """Return a variance for each sample that goes with it, whatever is cut out of a batch."""
    return y.double() ** 2 / 2 + 0.25


def counts(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    return torch.randn(shape).to(kind), torch.randint(0, 6, shape).to(kind)


def halves(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    """Return no target of 0, where torch's Stirling term has a gradient by the target that is NaN."""
    x, y = counts(shape, kind)
    return x, y + 0.5


def rates(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    x, y = counts(shape, kind)
    return x.abs() + 0.25, y


def positives(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    return torch.randn(shape).clamp(-3, 3).to(kind), (torch.rand(shape) * 3 + 0.25).to(kind)


def chances(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    y = (torch.rand(shape) * 0.9 + 0.05).to(kind)
    return -torch.rand(shape).to(kind) * 3 - 0.125, y


def log_chances(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    x, _ = chances(shape, kind)
    return x, -torch.rand(shape).to(kind) * 2


def tweedie(x: Tensor, y: Tensor, p: float) -> Tensor:
    if p == 0:
        return (x.exp() - y) ** 2 / 2
    if p == 1:
        return x.exp() - y * x
    if p == 2:
        return x + y * torch.exp(-x)
    return torch.exp((2 - p) * x) / (2 - p) - y * torch.exp((1 - p) * x) / (1 - p)


def focal(x: Tensor, y: Tensor, gamma: float = 2.0, alpha: float | None = 0.25) -> Tensor:
    """The paper's formula; y in between is a mixture."""
    a, b = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    return -a * y * q**gamma * F.logsigmoid(x) - b * (1 - y) * p**gamma * F.logsigmoid(-x)


def asymmetric(
    x: Tensor, y: Tensor, gamma_pos: float = 1.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    p = torch.sigmoid(x)
    c = (p - clip).clamp(min=0)
    return -y * (1 - p) ** gamma_pos * p.log() - (1 - y) * c**gamma_neg * (1 - c).log()


def _row(loss: str, options: dict[str, Any], samples: Any, oracle: Any, exact: Any, **more: Any):
    more.setdefault("extremes", ERRORS)
    more.setdefault("ulp", (4.0, 4.0))
    return Row(loss, options, samples, oracle, exact, **more)


PROBABILITY = (1.5, "a probability: 0, 1 or a number between")
BINARY = tuple(((x,), y) for x in LOGITS for y in (0.0, 1.0, 0.25))
SIGNS = tuple(((x,), y) for x in LOGITS for y in (-1.0, 1.0))
COUNTS = tuple(((x,), y) for x in LOGITS for y in (0.0, 1.0, 3.0, 1e4))
GAMMAS = tuple(((x,), y) for x in LOGITS for y in (1e-30, 1.0, 1e4))


def both(slope: float, value: float = INF):
    return (((INF,), 0.0, value, (slope,)), ((-INF,), 0.0, value, (-slope,)))


ELEMENTWISE: list[Row] = [
    _row(
        "mae",
        {},
        regression,
        lambda x, y: F.l1_loss(x, y, reduction="none"),
        exact_smooth_l1(0.0),
        mean=F.l1_loss,
        infinite=both(1.0),
    ),
    *(
        _row(
            "smooth_l1",
            {} if beta == 1 else {"beta": beta},
            regression,
            lambda x, y, b=beta: F.smooth_l1_loss(x, y, reduction="none", beta=b),
            exact_smooth_l1(beta),
            mean=lambda x, y, b=beta: F.smooth_l1_loss(x, y, beta=b),
            infinite=both(1.0),
        )
        for beta in (1.0, 0.25, 0)
    ),
    _row(
        "log_cosh",
        {},
        regression,
        lambda x, y: torch.log(torch.cosh(x - y)),
        exact_log_cosh,
        infinite=both(1.0),
    ),
    *(
        _row(
            "quantile",
            {"q": q},
            regression,
            lambda x, y, q=q: (x - y).abs() * torch.where(x > y, 1 - q, q),
            exact_quantile(q),
            infinite=(((INF,), 0.0, INF, (1 - q,)), ((-INF,), 0.0, INF, (-q,))),
        )
        for q in (0.5, 0.125)
    ),
    *(
        _row(
            "poisson",
            options,
            rates if "log_input" in options else halves if "full" in options else counts,
            lambda x, y, o=options: F.poisson_nll_loss(
                x, y, **{"full": False, **o}, reduction="none"
            ),
            exact_poisson(**options),
            mean=lambda x, y, o=options: F.poisson_nll_loss(x, y, **o),
            extremes=COUNTS
            if options.get("log_input", True)
            else tuple(((abs(x) + 1e-3,), y) for (x,), y in COUNTS),
            infinite=(
                ((INF,), 1.0, INF, (INF,)),
                ((-INF,), 0.0, 0.0, (0.0,)),
                ((-INF,), 1.0, INF, (-1.0,)),
            )
            if options.get("log_input", True)
            else (((INF,), 0.0, INF, (1.0,)),),
            unusable=(-1.0, "a finite number >= 0"),
        )
        for options in (
            {},
            {"full": True},
            {"log_input": False, "eps": 1e-3},
        )
    ),
    *(
        _row(
            "gaussian_nll",
            options,
            regression,
            lambda x, y, o=options: F.gaussian_nll_loss(
                x, y, spread(x, y), **{"full": False, **o}, reduction="none"
            ),
            exact_gaussian(**options),
            mean=lambda x, y, o=options: F.gaussian_nll_loss(x, y, spread(x, y), **o),
            infinite=both(INF),
            extra={"others": spread},
        )
        for options in ({}, {"full": True, "eps": 1e-3})
    ),
    _row(
        "gamma",
        {},
        positives,
        lambda x, y: x + y * torch.exp(-x),
        exact_gamma,
        extremes=GAMMAS,
        infinite=(((INF,), 1.0, INF, (1.0,)), ((-INF,), 1.0, INF, (-INF,))),
        unusable=(0.0, "a finite number > 0"),
    ),
    *(
        _row(
            "tweedie",
            {"power": power},
            positives,
            lambda x, y, p=power: tweedie(x, y, p),
            exact_tweedie(power),
            extremes=GAMMAS,
            unusable=(-1.0 if power >= 1 else INF, words),
        )
        for power in (1.5, 1.3, -1.0, 0, 1, 2, 3.0)
        for words in ("a finite number; with power >= 1 not negative, with power >= 2 > 0",)
    ),
    _row(
        "squared_hinge",
        {},
        signs,
        lambda x, y: F.relu(1 - y * x) ** 2,
        exact_squared_hinge,
        extremes=SIGNS,
        infinite=(((INF,), 1.0, 0.0, (0.0,)), ((INF,), -1.0, INF, (INF,))),
        unusable=(0.0, "-1 or +1"),
    ),
    _row(
        "perceptron",
        {},
        signs,
        lambda x, y: F.relu(-y * x),
        exact_perceptron,
        extremes=SIGNS,
        infinite=(((INF,), 1.0, 0.0, (0.0,)), ((INF,), -1.0, INF, (1.0,))),
        unusable=(0.0, "-1 or +1"),
    ),
    *(
        _row(
            "focal",
            options,
            probabilities,
            lambda x, y, o=options: focal(x, y, **o),
            exact_focal(**options),
            extremes=BINARY,
            infinite=(((INF,), 1.0, 0.0, (0.0,)), ((-INF,), 0.0, 0.0, (0.0,))),
            unusable=PROBABILITY,
        )
        for options in ({}, {"gamma": 0.5, "alpha": None}, {"gamma": 0})
    ),
    *(
        _row(
            "kl_divergence",
            options,
            log_chances if options else chances,
            lambda x, y, o=options: F.kl_div(x, y, reduction="none", **o),
            exact_kl(**options),
            mean=lambda x, y, o=options: F.kl_div(x, y, **o),
            extremes=tuple(((x,), y) for x in LOGITS for y in (0.0, 1e-30, 0.25, 1.0)),
            infinite=(((-INF,), 0.5, INF, (-0.5,)), ((-INF,), 0.0, 0.0, (0.0,)))
            if not options
            else (((-INF,), -INF, 0.0, (0.0,)),),
            unusable=(
                INF if options else -0.5,
                "a finite number >= 0; with log_target a finite number or -inf",
            ),
        )
        for options in ({}, {"log_target": True})
    ),
    *(
        _row(
            "asymmetric",
            options,
            probabilities,
            lambda x, y, o=options: asymmetric(x, y, **o),
            exact_asymmetric(**options),
            extremes=BINARY,
            infinite=(((INF,), 1.0, 0.0, (0.0,)), ((-INF,), 0.0, 0.0, (0.0,))),
            unusable=PROBABILITY,
        )
        for options in (
            {},
            {"gamma_pos": 0, "gamma_neg": 0.5, "clip": 0.125},
            {"gamma_pos": 0.5, "gamma_neg": 0, "clip": 0},
        )
    ),
]
