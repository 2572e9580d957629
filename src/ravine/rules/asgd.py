"""ASGD: averaged stochastic gradient descent."""

from __future__ import annotations

from ravine.engine.functions import maximum, where
from ravine.rules.rule import rule

_NOT_NEGATIVE = ("a number >= 0", lambda x: x >= 0)


@rule("ASGD", numbers={"eta": "lr", "mu": 1.0}, bounds={"lambd": _NOT_NEGATIVE})
def asgd(w, g, ax, *, t, eta, mu, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6):
    """Averaged SGD: descent with a falling step, and the plain average of the weights since t0.

    Equation:
        w   <- w - eta lambd w - eta g
        ax  <- ax + mu (w - ax)   (ax <- w while mu = 1)
        eta <- lr / (1 + lambd lr t)^alpha     mu <- 1 / max(1, t - t0)    (from lr and 1)

    The average is ``optimizer.state[weight]["ax"]``. eta follows lr a step later, as in torch.

    Differs from: torch keeps eta and mu in float32; here they are float64.

    Source: Polyak & Juditsky 1992; `torch.optim.ASGD`.
    """
    w = w - eta * lambd * w - eta * g
    ax = where(mu == 1, w, ax + mu * (w - ax))
    eta = lr / (1 + lambd * lr * t) ** alpha
    mu = 1 / maximum(1.0, t - t0)
    return w, ax, eta, mu
