"""AdEMAMix: Adam with a second, slow momentum."""

from __future__ import annotations

from ravine.engine.functions import exp, log, minimum, sqrt
from ravine.rules.rule import rule

_STEPS = ("a number of steps > 0, or None", lambda x: x is None or x > 0)


@rule(
    "AdEMAMix",
    state_names={"fast": "exp_avg_fast", "slow": "exp_avg_slow", "v": "exp_avg_sq"},
    moments={"fast": "signed", "slow": "signed", "v": "nonnegative"},
    defaults={"decay": "decoupled"},
    bounds={
        "alpha": ("a number >= 0", lambda x: x >= 0),
        "alpha_warmup": _STEPS,
        "beta3_warmup": _STEPS,
    },
)
def ademamix(
    w,
    g,
    fast,
    slow,
    v,
    *,
    t,
    lr=1e-3,
    betas=(0.9, 0.999, 0.9999),
    alpha=2.0,
    alpha_warmup=None,
    beta3_warmup=None,
    eps=1e-8,
):
    """AdEMAMix: Adam whose momentum is joined by one that remembers ten thousand steps.

    Equation:
        fast <- beta1 fast + (1 - beta1) g
        slow <- b slow + (1 - b) g
        v    <- beta2 v + (1 - beta2) g^2
        w <- w - lr weight_decay w
        w <- w - lr (fast / (1 - beta1^t) + a slow) / (sqrt(v / (1 - beta2^t)) + eps)
        a = alpha min(t / alpha_warmup, 1),   x = min(t / beta3_warmup, 1)
        b = exp(1 / ((1 - x) / ln(beta1) + x / ln(beta3)))

    The warm-ups (T_alpha and T_beta3 in the paper) are best as long as the training; None is none.

    Differs from: the authors' code adds 1e-8 to the betas inside of the logarithms; here, as in the
    paper, they are as given. Its default alpha is 2, as here; its example trains with 8.

    Source: Pagliardini, Ablin & Grangier 2024, algorithm 1 and section 3.
    """
    beta1, beta2, beta3 = betas
    if alpha_warmup is not None:
        alpha = alpha * minimum(t / alpha_warmup, 1.0)
    if beta3_warmup is not None:
        x = minimum(t / beta3_warmup, 1.0)
        beta3 = exp(1 / ((1 - x) / log(beta1) + x / log(beta3)))
    fast = beta1 * fast + (1 - beta1) * g
    slow = beta3 * slow + (1 - beta3) * g
    v = beta2 * v + (1 - beta2) * g * g
    step = (fast / (1 - beta1**t) + alpha * slow) / (sqrt(v / (1 - beta2**t)) + eps)
    return w - lr * step, fast, slow, v
