"""Gradient descent."""

from __future__ import annotations

from ravine.rules.rule import rule


@rule("GradientDescent")
def gradient_descent(w, g, *, lr=1e-2):
    """Gradient descent: a step against the gradient, and nothing else.

    Equation:
        w <- w - lr g

    Fed with all rows it is batch gradient descent, with one row stochastic gradient descent, with
    some rows mini-batch gradient descent (``batch_size="all" | 1 | n`` of `ravine.train`).

    Differs from: nothing; `torch.optim.SGD` without momentum, `optax.sgd`, Keras's ``SGD``.

    Source: Cauchy 1847; Robbins & Monro 1951 for the stochastic form.
    """
    return w - lr * g
