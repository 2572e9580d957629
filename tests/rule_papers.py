"""Algorithms of papers, written out weight by weight in plain torch: oracles of rule_table.py.

Each follows its paper line by line and shares nothing with the rules that are tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


def lamb(w, g, state, t, *, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    """You et al. 2020, algorithm 2, with the identity as phi."""
    m = state["m"] = betas[0] * state.get("m", torch.zeros_like(w)) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * g.square()
    r = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    direction = r + weight_decay * w
    sizes = torch.linalg.vector_norm(w), torch.linalg.vector_norm(direction)
    ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
    return w - lr * ratio * direction


def lars(w, g, state, t, *, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3):
    """You, Gitman & Ginsburg 2017, algorithm 1."""
    size = torch.linalg.vector_norm(w)
    below = torch.linalg.vector_norm(g) + weight_decay * size
    local = trust_coefficient * size / below if min(size, below) > 0 else 1.0
    velocity = momentum * state.get("v", torch.zeros_like(w))
    state["v"] = velocity + lr * local * (g + weight_decay * w)
    return w - state["v"]


def mars(w, g, state, t, *, lr, betas=(0.95, 0.99), eps=1e-8, gamma=0.025, weight_decay=0.0):
    """Yuan et al. 2024, algorithm 2, in its approximate form."""
    change = g - state.get("g", g)
    state["g"] = g.clone()
    c = g + gamma * betas[0] / (1 - betas[0]) * change
    size = torch.linalg.vector_norm(c)
    c = c / size if size > 1 else c
    m = state["m"] = betas[0] * state.get("m", torch.zeros_like(w)) + (1 - betas[0]) * c
    v = state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * c**2
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return w - lr * (m / (v.sqrt() + eps) + weight_decay * w)


def wide_numbers(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return an oracle whose torch optimizer keeps its numbers in float64, not in float32."""

    def made(weights: Any) -> Callable[[], None]:
        step = make(weights)

        def wide_step() -> None:
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float64)
            try:
                step()
            finally:
                torch.set_default_dtype(before)

        return wide_step

    return made


def lion(w, g, state, t, *, lr, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. 2023, algorithm 2, in its order: the update, then the momentum."""
    momentum = state.get("m", torch.zeros_like(w))
    update = torch.sign(torch.lerp(g, momentum, betas[0]))
    state["m"] = torch.lerp(g, momentum, betas[1])
    return w - lr * (update + weight_decay * w)


def ademamix(
    w, g, state, t, *, lr, betas=(0.9, 0.999, 0.9999), alpha=2.0, alpha_warmup=None, beta3_warmup=None,
    eps=1e-8, weight_decay=0.0,
):  # fmt: skip
    """Pagliardini et al. 2024, algorithm 1, with its equations of the two schedules."""
    start, beta2, end = betas
    beta3 = end
    if beta3_warmup:
        x = t / beta3_warmup
        top = math.log(start) * math.log(end)
        bottom = (1 - x) * math.log(end) + x * math.log(start)
        beta3 = min(math.exp(top / bottom), end) if x < 1 else end
    if alpha_warmup:
        alpha = min(t * alpha / alpha_warmup, alpha)
    zero = torch.zeros_like(w)
    m1 = state["m1"] = start * state.get("m1", zero) + (1 - start) * g
    m2 = state["m2"] = beta3 * state.get("m2", zero) + (1 - beta3) * g
    nu = state["nu"] = beta2 * state.get("nu", zero) + (1 - beta2) * g.square()
    update = (m1 / (1 - start**t) + alpha * m2) / ((nu / (1 - beta2**t)).sqrt() + eps)
    return w - lr * (update + weight_decay * w)


def cautious(direction, g):
    """Liang et al. 2024, algorithm 1, with the floor of the authors' code."""
    mask = ((direction > 0) & (g > 0) | (direction < 0) & (g < 0)).to(direction.dtype)
    return direction * mask / mask.mean().clamp(min=1e-3) if mask.numel() else direction


def cautious_adamw(w, g, state, t, *, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m = state["m"] = betas[0] * state.get("m", torch.zeros_like(w)) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * g.square()
    u = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w - lr * weight_decay * w - lr * cautious(u, g)


def cautious_momentum(w, g, state, t, *, lr, momentum):
    b = state["b"] = momentum * state["b"] + g if "b" in state else g.clone()
    return w - lr * cautious(b, g)


def schedule_free_sgd(
    w, g, state, t, *, lr, momentum=0.9, warmup_steps=0, r=0.0, weight_lr_power=2.0,
    weight_decay=0.0,
):  # fmt: skip
    """Defazio et al. 2024, equations 3 to 5, with x kept; decay at y as in their package."""
    return _schedule_free(
        w, g + weight_decay * w, state, t, lr, momentum, warmup_steps, r, weight_lr_power
    )


def schedule_free_adamw(
    w, g, state, t, *, lr, betas=(0.9, 0.999), eps=1e-8, warmup_steps=0, r=0.0,
    weight_lr_power=2.0, weight_decay=0.0,
):  # fmt: skip
    """Defazio et al. 2024, algorithm 1, with the correction of v at v as in their package."""
    v = state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * g * g
    direction = g / ((v / (1 - betas[1] ** t)).sqrt() + eps) + weight_decay * w
    return _schedule_free(w, direction, state, t, lr, betas[0], warmup_steps, r, weight_lr_power)


def _schedule_free(y, direction, state, t, lr, beta, warmup_steps, r, power):
    rate = lr * t / warmup_steps if t < warmup_steps else lr
    state["rates"] = [*state.get("rates", []), rate]
    weights = [(k + 1) ** r * max(state["rates"][: k + 1]) ** power for k in range(t)]
    c = weights[-1] / sum(weights) if sum(weights) else 0.0
    z = state["z"] = state.get("z", y) - rate * direction
    x = state["x"] = (1 - c) * state.get("x", y) + c * z
    return (1 - beta) * z + beta * x


def prodigy(
    *, lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0.0, decouple=True,
    use_bias_correction=False, safeguard_warmup=False, d0=1e-6, d_coef=1.0, growth_rate=None,
):  # fmt: skip
    """Mishchenko & Defazio 2023, algorithm 4, with the options of the authors' package."""
    beta1, beta2 = betas
    beta3 = beta2**0.5 if beta3 is None else beta3

    def make(weights: Any) -> Callable[[], None]:
        x0 = [w.detach().clone() for w in weights]
        m, v, s = ([torch.zeros_like(w) for w in x0] for _ in "mvs")
        held = {"k": 0, "d": d0, "d_max": d0, "numerator": 0.0}

        @torch.no_grad()
        def step() -> None:
            held["k"] += 1
            k, d = held["k"], held["d"]
            correction = (1 - beta2**k) ** 0.5 / (1 - beta1**k) if use_bias_correction else 1.0
            rate = d * lr * correction
            numerator, denominator = beta3 * held["numerator"], 0.0
            for i, w in enumerate(weights):
                g = w.grad if decouple else w.grad + weight_decay * w
                numerator += float(d / d0 * rate * (g * (x0[i] - w)).sum())
                m[i] = beta1 * m[i] + d * (1 - beta1) * g
                v[i] = beta2 * v[i] + d**2 * (1 - beta2) * g**2
                s[i] = beta3 * s[i] + d / d0 * (d if safeguard_warmup else rate) * g
                denominator += float(s[i].abs().sum())
            estimate = d_coef * numerator / denominator
            new = max(d, estimate) if d == d0 else d
            held["d_max"] = max(held["d_max"], estimate)
            limit = float("inf") if growth_rate is None else growth_rate
            held["d"] = new = min(held["d_max"], new * limit)
            held["numerator"] = numerator
            for i, w in enumerate(weights):
                decay = weight_decay if decouple else 0.0
                w.copy_((1 - rate * decay) * w - rate * m[i] / (v[i].sqrt() + new * eps))

        return step

    return make
