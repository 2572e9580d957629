"""Momentum as textbooks write it."""

from __future__ import annotations

from ravine.rules.rule import rule


@rule("Momentum", state_names={"v": "momentum_buffer"}, moments={"v": "signed"})
def momentum(w, g, v, *, lr=1e-2, beta=0.9):
    """Momentum, the textbook form: a step along an exponential average of the gradients.

    Equation:
        v <- beta v + (1 - beta) g
        w <- w - lr v

    Differs from: `torch.optim.SGD` and optax add up gradients (b <- mu b + g), so that the same lr
    makes a step 1 / (1 - beta) times as long; Keras keeps lr inside the velocity, where a change of
    lr acts late. ``SGD(momentum=beta, dampening=beta)`` is this rule but for torch's first step,
    which is not damped.

    Source: Polyak 1964; in this form Goodfellow, Bengio & Courville 2016, section 8.3.2, and Ng's
    course.
    """
    v = beta * v + (1 - beta) * g
    return w - lr * v, v
