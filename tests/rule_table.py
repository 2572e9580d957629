"""One row for every rule and set of options, each with an oracle that shares no code with it.

A new rule needs one row here and gets the whole suite. An oracle takes weights and returns the function
that makes one step with their gradients: a torch optimizer, or a formula written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rule_papers import lamb, lars, mars, wide_numbers
from torch import Tensor

Weights = Sequence[Tensor]
Oracle = Callable[[Weights], Callable[[], None]]


@dataclass(frozen=True)
class Row:
    """A rule with options, and what must give the same numbers."""

    rule: str
    options: dict[str, Any]
    oracle: Oracle
    torch_class: type[torch.optim.Optimizer] | None = None
    torch_options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "-".join(f"{k}={v}" for k, v in self.options.items() if k != "lr")
        return f"{self.rule}-{shown or 'plain'}".replace(" ", "")


def same(
    rule: str, *, oracle: str = "", theirs: dict[str, Any] | None = None, **options: Any
) -> Row:
    """Return a row whose oracle is the torch optimizer of the same name and options."""
    torch_class = getattr(torch.optim, oracle or rule)
    torch_options = options if theirs is None else theirs
    made = wide_numbers(by_torch(torch_class, **torch_options))
    return Row(rule, options, made, torch_class, torch_options)


def paper(rule: str, update: Callable[..., Tensor], **options: Any) -> Row:
    """Return a row whose oracle is a formula with the same options."""
    return Row(rule, options, formula(update, **options))


def by_torch(
    torch_class: type[torch.optim.Optimizer],
    *,
    before: Callable[[Weights], None] | None = None,
    after: Callable[[Weights], None] | None = None,
    **options: Any,
) -> Oracle:
    """Return the oracle of a torch optimizer; ``before`` may change gradients, ``after`` weights."""

    def make(weights: Weights) -> Callable[[], None]:
        optimizer = torch_class(weights, **options)

        @torch.no_grad()
        def step() -> None:
            if before is not None:
                before(weights)
            optimizer.step()
            if after is not None:
                after(weights)

        return step

    return make


def formula(update: Callable[..., Tensor], **numbers: Any) -> Oracle:
    """Return the oracle of ``update(w, g, state, t) -> w``, called weight by weight."""

    def make(weights: Weights) -> Callable[[], None]:
        states: list[dict[str, Any]] = [{} for _ in weights]
        steps = [0] * len(weights)

        @torch.no_grad()
        def step() -> None:
            for k, w in enumerate(weights):
                if w.grad is not None:
                    steps[k] += 1
                    w.copy_(update(w.clone(), w.grad, states[k], steps[k], **numbers))

        return step

    return make


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


def lion(w, g, state, t, *, lr, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. 2023, algorithm 2, in its order: the update, then the momentum."""
    momentum = state.get("m", torch.zeros_like(w))
    update = torch.sign(torch.lerp(g, momentum, betas[0]))
    state["m"] = torch.lerp(g, momentum, betas[1])
    return w - lr * (update + weight_decay * w)


def ademamix(
    w, g, state, t, *, lr, betas=(0.9, 0.999, 0.9999), alpha=2.0, T_alpha=None, T_beta3=None,
    eps=1e-8, weight_decay=0.0,
):  # fmt: skip
    """Pagliardini et al. 2024, algorithm 1, with its equations of the two schedules."""
    start, beta2, end = betas
    beta3 = end
    if T_beta3:
        x = t / T_beta3
        top = math.log(start) * math.log(end)
        bottom = (1 - x) * math.log(end) + x * math.log(start)
        beta3 = min(math.exp(top / bottom), end) if x < 1 else end
    if T_alpha:
        alpha = min(t * alpha / T_alpha, alpha)
    zero = torch.zeros_like(w)
    m1 = state["m1"] = start * state.get("m1", zero) + (1 - start) * g
    m2 = state["m2"] = beta3 * state.get("m2", zero) + (1 - beta3) * g
    nu = state["nu"] = beta2 * state.get("nu", zero) + (1 - beta2) * g.square()
    update = (m1 / (1 - start**t) + alpha * m2) / ((nu / (1 - beta2**t)).sqrt() + eps)
    return w - lr * (update + weight_decay * w)


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
    *(
        Row("Lion", options, formula(lion, **options))
        for options in ({"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.8), "weight_decay": 0.3})
    ),
    Row("AdEMAMix", {"lr": 0.01}, formula(ademamix, lr=0.01)),
    Row(
        "AdEMAMix",
        {"lr": 0.1, "betas": (0.5, 0.9, 0.99), "alpha": 8.0, "eps": 1e-3, "weight_decay": 0.3},
        formula(ademamix, lr=0.1, betas=(0.5, 0.9, 0.99), alpha=8.0, eps=1e-3, weight_decay=0.3),
    ),
    Row(
        "AdEMAMix",
        {"lr": 0.01, "alpha_warmup": 30, "beta3_warmup": 50},
        formula(ademamix, lr=0.01, T_alpha=30, T_beta3=50),
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
