"""Prodigy: Adam that finds its own learning rate."""

from __future__ import annotations

from ravine.engine.functions import abs, maximum, minimum, model_sum, sqrt, where
from ravine.rules.rule import rule


@rule(
    "Prodigy",
    state_names={"m": "exp_avg", "v": "exp_avg_sq"},
    moments={"m": "signed", "v": "nonnegative"},
    initial={"p0": "w"},
    shared={"d": "d0", "d_max": "d0", "d_numerator": 0.0},
    bounds={
        "beta3": ("a number in [0, 1), or None", lambda x: x is None or 0 <= x < 1),
        "d0": ("a number > 0", lambda x: x > 0),
        "d_coef": ("a number > 0", lambda x: x > 0),
        "growth_rate": ("a number >= 1, or None", lambda x: x is None or x >= 1),
    },
)
def prodigy(
    w, g, m, v, s, p0, *, t, d, d_max, d_numerator, lr=1.0, betas=(0.9, 0.999), beta3=None,
    eps=1e-8, weight_decay=0.0, decouple=True, use_bias_correction=False, safeguard_warmup=False,
    d0=1e-6, d_coef=1.0, growth_rate=None,
):  # fmt: skip
    """Prodigy: Adam with an estimate d of the distance to the solution as its learning rate.

    Equation:
        k = lr d   (times sqrt(1 - beta2^t) / (1 - beta1^t) with use_bias_correction)
        m <- beta1 m + (1 - beta1) d g
        v <- beta2 v + (1 - beta2) d^2 g^2
        s <- beta3 s + (d / d0) k g                     (beta3 = sqrt(beta2) if None)
        n <- beta3 n + sum (d / d0) k g (p0 - w)        (d_numerator)
        d' = d_coef n / sum |s|;   d <- the largest d' so far, at most growth_rate d
        w <- w - k weight_decay w - k m / (sqrt(v) + d eps)     (decay into g without decouple)

    The sums are over all weights; d is one number for the optimizer, ``param_groups[0]["d"]``. With
    safeguard_warmup s takes d in the place of k. Leave lr at 1, or let it be a schedule up to 1.

    Differs from: the package prodigyopt has ``growth_rate=inf`` where this has None, can look at every
    slice_p-th weight, and leaves groups of lr 0 out of s. The paper has the old d beside eps.

    Source: Mishchenko & Defazio 2023, algorithm 4; the package prodigyopt.
    """
    beta1, beta2 = betas
    if beta3 is None:
        beta3 = beta2**0.5
    k = lr * d
    if use_bias_correction:
        k = k * sqrt(1 - beta2**t) / (1 - beta1**t)
    if not decouple:
        g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * d * g
    v = beta2 * v + (1 - beta2) * d * d * g * g
    weight = d / d0 * (d if safeguard_warmup else k)
    s = beta3 * s + weight * g
    d_numerator = beta3 * d_numerator + model_sum(d / d0 * k * g * (p0 - w))
    total = model_sum(abs(s))
    found = where(total > 0, d_coef * d_numerator / total, d)
    d_max = maximum(d_max, found)
    d = where(d == d0, maximum(d, found), d)
    d = d_max if growth_rate is None else minimum(d_max, d * growth_rate)
    if decouple:
        w = w - k * weight_decay * w
    return w - k * m / (sqrt(v) + d * eps), m, v, s, p0, d, d_max, d_numerator
