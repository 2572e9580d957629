"""One row for every rule and set of options, each with an oracle that shares no code with it.

A new rule needs one row here and gets the whole suite. See `oracles` for what a row is compared with: a
torch optimizer, or a formula written out, those of papers in `rule_papers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from oracles import Row, Weights, by_torch, formula, paper, same
from rule_papers import (
    ademamix,
    cautious_adamw,
    cautious_momentum,
    lamb,
    lars,
    lion,
    mars,
    prodigy,
    schedule_free_adamw,
    schedule_free_sgd,
)
from torch import Tensor


def textbook_momentum(w, g, state, t, *, lr, beta):
    state["v"] = beta * state.get("v", torch.zeros_like(w)) + (1 - beta) * g
    return w - lr * state["v"]


def rmsprop_eps_inside(w, g, state, t, *, lr, alpha, eps, momentum=0.0, centered=False):
    state["E"] = alpha * state.get("E", torch.zeros_like(w)) + (1 - alpha) * g**2
    variance = state["E"]
    if centered:
        state["mean"] = alpha * state.get("mean", torch.zeros_like(w)) + (1 - alpha) * g
        variance = variance - state["mean"] ** 2
    step = g / (variance + eps) ** 0.5
    if momentum:
        state["b"] = step = momentum * state.get("b", torch.zeros_like(w)) + step
    return w - lr * step


def decayed_independently(w, g, state, t, *, lr, weight_decay):
    return w - weight_decay * w - lr * g


def soft_thresholded(w, g, state, t, *, lr, l1):
    moved = w - lr * g
    return torch.nn.functional.softshrink(moved, lr * l1)


def averaging(w, g, state, t, *, lr, average):
    moved = w - lr * g
    state["average"] = average * state.get("average", w.clone()) + (1 - average) * moved
    return moved


def clip_norm(limit: float) -> Callable[[Weights], None]:
    """Clip as torch does; the caller's gradients are clones."""
    return lambda weights: torch.nn.utils.clip_grad_norm_(list(weights), limit) and None


def clip_value(limit: float) -> Callable[[Weights], None]:
    return lambda weights: torch.nn.utils.clip_grad_value_(list(weights), limit)


def add_to_gradient(extra: Callable[[Tensor], Tensor]) -> Callable[[Weights], None]:
    def before(weights: Weights) -> None:
        for w in weights:
            if w.grad is not None:
                w.grad = w.grad + extra(w.detach())

    return before


def clipped_then_penalised(weights: Weights) -> None:
    clip_norm(2.0)(weights)
    clip_value(0.5)(weights)
    add_to_gradient(lambda w: 2 * 0.01 * w)(weights)
    add_to_gradient(lambda w: 0.02 * torch.sign(w))(weights)


SGD = torch.optim.SGD
ADAM = torch.optim.Adam

ROWS: list[Row] = [
    same("GradientDescent", oracle="SGD", lr=0.1),
    same("SGD", lr=0.1),
    same("SGD", lr=0.1, momentum=0.9),
    same("SGD", lr=0.1, momentum=0.9, dampening=0.3),
    same("SGD", lr=0.1, momentum=0.9, nesterov=True),
    same("SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, maximize=True),
    same("SGD", lr=0.1, weight_decay=0.1),
    same("SGD", lr=0.01, maximize=True),
    Row("Momentum", {"lr": 0.1}, formula(textbook_momentum, lr=0.1, beta=0.9)),
    Row("Momentum", {"lr": 0.1, "beta": 0.5}, formula(textbook_momentum, lr=0.1, beta=0.5)),
    same("RMSprop", lr=0.01),
    same("RMSprop", lr=0.01, alpha=0.8, eps=1e-3, weight_decay=0.1),
    same("RMSprop", lr=0.01, momentum=0.9),
    same("RMSprop", lr=0.01, centered=True),
    same("RMSprop", lr=0.01, centered=True, momentum=0.9, maximize=True),
    Row(
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "eps_inside_sqrt": True},
        formula(rmsprop_eps_inside, lr=0.01, alpha=0.9, eps=1e-4),
    ),
    Row(
        "RMSprop",
        {"lr": 0.01, "eps": 1e-3, "eps_inside_sqrt": True, "momentum": 0.5, "centered": True},
        formula(rmsprop_eps_inside, lr=0.01, alpha=0.99, eps=1e-3, momentum=0.5, centered=True),
    ),
    same("Adam", lr=0.01),
    same("Adam", lr=0.01, betas=(0.5, 0.9), eps=1e-3),
    same("Adam", lr=0.01, betas=(0.0, 0.0)),
    same("Adam", lr=0.01, amsgrad=True),
    same("Adam", lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    same("AdamW", lr=0.01),
    same("AdamW", lr=0.01, weight_decay=0.3, amsgrad=True),
    same("AdamW", lr=0.01, weight_decay=0.0, maximize=True),
    same("NAdam", lr=0.01),
    same("NAdam", lr=0.01, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, maximize=True),
    same("NAdam", lr=0.01, momentum_decay=0.5),
    same(
        "NAdam",
        lr=0.01,
        weight_decay=0.1,
        decay="decoupled",
        theirs={"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    same("ASGD", lr=0.1),
    same("ASGD", lr=0.1, lambd=0.1, alpha=0.5, t0=30, weight_decay=0.1, maximize=True),
    paper("LAMB", lamb, lr=0.01),
    paper("LAMB", lamb, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
    paper("LARS", lars, lr=0.1),
    paper("LARS", lars, lr=1.0, momentum=0.5, weight_decay=0.1, trust_coefficient=0.02),
    paper("MARS", mars, lr=0.01),
    paper("MARS", mars, lr=0.1, betas=(0.8, 0.9), eps=1e-3, gamma=0.5, weight_decay=0.1),
    same("Adamax", lr=0.01),
    same("Adamax", lr=0.01, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, maximize=True),
    same("RAdam", lr=0.01),
    same("RAdam", lr=0.01, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, maximize=True),
    same("RAdam", lr=0.01, betas=(0.0, 0.0)),
    same("RAdam", lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    same("Adagrad", lr=0.1),
    same("Adagrad", lr=0.1, lr_decay=0.1, weight_decay=0.1, maximize=True),
    same("Adagrad", lr=0.1, initial_accumulator_value=0.5, eps=1e-3),
    same("Adadelta", lr=0.5),
    same("Adadelta", lr=0.5, rho=0.5, eps=1e-3, weight_decay=0.1, maximize=True),
    same("Rprop", lr=0.01),
    same("Rprop", lr=0.1, etas=(0.3, 1.7), step_sizes=(1e-3, 0.2), maximize=True),
    same("Rprop", lr=1.0, step_sizes=(0.0, 0.1)),
    paper("Lion", lion, lr=0.01),
    paper("Lion", lion, lr=0.1, betas=(0.5, 0.8), weight_decay=0.3),
    paper("AdEMAMix", ademamix, lr=0.01),
    paper(
        "AdEMAMix", ademamix, lr=0.1, betas=(0.5, 0.9, 0.99), alpha=8.0, eps=1e-3, weight_decay=0.3
    ),
    paper("AdEMAMix", ademamix, lr=0.01, alpha_warmup=30, beta3_warmup=50),
    paper("ScheduleFreeSGD", schedule_free_sgd, lr=0.1),
    paper(
        "ScheduleFreeSGD",
        schedule_free_sgd,
        lr=0.1,
        momentum=0.5,
        warmup_steps=20,
        r=1.0,
        weight_lr_power=1.0,
        weight_decay=0.1,
    ),
    paper("ScheduleFreeAdamW", schedule_free_adamw, lr=0.01),
    paper(
        "ScheduleFreeAdamW",
        schedule_free_adamw,
        lr=0.1,
        betas=(0.5, 0.9),
        eps=1e-3,
        warmup_steps=20,
        r=1.0,
        weight_lr_power=1.0,
        weight_decay=0.1,
    ),
    *(
        Row("Prodigy", options, prodigy(**options))
        for options in (
            {"lr": 1.0},
            {"lr": 0.5, "betas": (0.5, 0.9), "beta3": 0.8, "eps": 1e-3, "weight_decay": 0.1},
            {"lr": 1.0, "d0": 1e-3, "d_coef": 0.5, "growth_rate": 1.1, "use_bias_correction": True},
            {
                "lr": 0.1,
                "d0": 1e-3,
                "weight_decay": 0.1,
                "decouple": False,
                "safeguard_warmup": True,
            },
        )
    ),
    # what every optimizer can do, shown on the simplest rule and together on Adam
    Row("SGD", {"lr": 0.1, "clip_norm": 0.7}, by_torch(SGD, before=clip_norm(0.7), lr=0.1)),
    Row("SGD", {"lr": 0.1, "clip_value": 0.3}, by_torch(SGD, before=clip_value(0.3), lr=0.1)),
    same("SGD", lr=0.1, l2=0.05, theirs={"lr": 0.1, "weight_decay": 0.1}),
    Row(
        "SGD",
        {"lr": 0.1, "l1": 0.05},
        by_torch(SGD, before=add_to_gradient(lambda w: 0.05 * torch.sign(w)), lr=0.1),
    ),
    Row(
        "SGD",
        {"lr": 0.1, "l1": 0.05, "l1_proximal": True},
        formula(soft_thresholded, lr=0.1, l1=0.05),
    ),
    Row(
        "SGD",
        {"lr": 0.1, "weight_decay": 0.01, "decay": "independent"},
        formula(decayed_independently, lr=0.1, weight_decay=0.01),
    ),
    Row("SGD", {"lr": 0.1, "average": 0.9}, formula(averaging, lr=0.1, average=0.9)),
    Row(
        "SGD",
        {"lr": 0.001, "momentum": 0.9, "cautious": True},
        formula(cautious_momentum, lr=0.001, momentum=0.9),
    ),
    Row(
        "AdamW",
        {"lr": 0.01, "weight_decay": 0.3, "cautious": True},
        formula(cautious_adamw, lr=0.01, weight_decay=0.3),
    ),
    same(
        "Adam",
        lr=0.01,
        weight_decay=0.1,
        decay="decoupled",
        theirs={"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    Row(
        "Adam",
        {"lr": 0.01, "clip_norm": 2.0, "clip_value": 0.5, "l2": 0.01, "l1": 0.02, "average": 0.9},
        by_torch(ADAM, before=clipped_then_penalised, lr=0.01),
    ),
]
