"""Schedule-free AdamW."""

from __future__ import annotations

from ravine.engine.functions import maximum, minimum, sqrt, where
from ravine.rules.rule import rule


def to_evaluation(w, z, *, betas):
    """From y, where gradients are taken, to the average x."""
    return w + (1 - 1 / betas[0]) * (z - w)


def to_training(w, z, *, betas):
    """From the average x to y."""
    return w + (1 - betas[0]) * (z - w)


@rule(
    "ScheduleFreeAdamW",
    state_names={"v": "exp_avg_sq"},
    moments={"v": "nonnegative"},
    initial={"z": "w"},
    numbers={"weight_sum": 0.0, "lr_max": 0.0},
    evaluation=(to_evaluation, to_training),
    bounds={
        "betas": ("numbers in [0, 1), the first > 0", lambda x: 0 < x[0] < 1 and 0 <= x[1] < 1),
        "warmup_steps": ("a number >= 0", lambda x: x >= 0),
    },
)
def schedule_free_adamw(
    w, g, z, v, *, t, weight_sum, lr_max, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8,
    weight_decay=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0,
):  # fmt: skip
    """Schedule-free AdamW: RMSprop's step without a schedule, with an average in its place.

    Equation:
        step = lr min(1, t / warmup_steps),   c = a_t / (a_1 + ... + a_t),
        a_t  = t^r (largest step so far)^weight_lr_power
        v <- beta2 v + (1 - beta2) g^2
        d  = g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w
        w <- w + c (z - w) - step (1 - beta1 (1 - c)) d
        z <- z - step d
        x  = w + (1 - 1 / beta1) (z - w)   is the average, put in place by ``optimizer.eval()``

    w is the point between z and x where gradients are taken. Call ``optimizer.eval()`` before the
    model is evaluated or saved, and ``optimizer.train()`` before training goes on.

    Differs from: the authors' package starts in evaluation, here training can begin at once; the
    paper's algorithm 1 puts the correction of v into the learning rate.

    Source: Defazio et al. 2024, algorithm 1; the package schedulefree.
    """
    beta1, beta2 = betas
    step = lr * minimum(1.0, t / maximum(warmup_steps, 1))
    lr_max = maximum(lr_max, step)
    weight = t**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    c = where(weight_sum > 0, weight / weight_sum, 0.0)
    v = beta2 * v + (1 - beta2) * g * g
    d = g / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * w
    w = w + c * (z - w) - step * (1 - beta1 * (1 - c)) * d
    return w, z - step * d, v, weight_sum, lr_max
