"""Value and slope of the elementwise losses as their papers write them, in mpmath."""

from __future__ import annotations

from mpmath import cosh, exp, log, log1p, mpf, pi, sign, tanh


def exact_smooth_l1(beta):
    def exact(x, y):
        e = x[0] - y
        if abs(e) < beta:
            return e * e / (2 * mpf(beta)), [e / mpf(beta)]
        return abs(e) - mpf(beta) / 2, [sign(e)]

    return exact


def exact_log_cosh(x, y):
    e = abs(x[0] - y)
    value = log(cosh(e)) if e < 1000 else e - log(mpf(2)) + log1p(exp(-2 * e))
    return value, [tanh(x[0] - y)]


def exact_quantile(q):
    def exact(x, y):
        e = y - x[0]
        return max(q * e, (q - 1) * e), [-mpf(q) if e > 0 else 1 - mpf(q) if e < 0 else mpf(0)]

    return exact


def exact_poisson(log_input=True, full=False, eps=1e-8):
    def exact(x, y):
        (x,) = x
        tail = y * log(y) - y + log(2 * pi * y) / 2 if full and y > 1 else mpf(0)
        if log_input:
            return exp(x) - y * x + tail, [exp(x) - y]
        return x - y * log(x + mpf(eps)) + tail, [1 - y / (x + mpf(eps))]

    return exact


def exact_gaussian(full=False, eps=1e-6):
    def exact(x, y):
        e, v = x[0] - y, max(y**2 / 2 + mpf(0.25), mpf(eps))
        return (log(v) + e * e / v + (log(2 * pi) if full else 0)) / 2, [e / v]

    return exact


def exact_gamma(x, y):
    return x[0] + y * exp(-x[0]), [1 - y * exp(-x[0])]


def exact_tweedie(power):
    p = mpf(power)

    def exact(x, y):
        (x,) = x
        slope = exp((2 - p) * x) - y * exp((1 - p) * x)
        if p == 0:
            return (exp(x) - y) ** 2 / 2, [slope]
        if p == 1:
            return exp(x) - y * x, [slope]
        if p == 2:
            return x + y * exp(-x), [slope]
        return exp((2 - p) * x) / (2 - p) - y * exp((1 - p) * x) / (1 - p), [slope]

    return exact


def exact_squared_hinge(x, y):
    margin = max(mpf(0), 1 - y * x[0])
    return margin**2, [-2 * y * margin]


def exact_perceptron(x, y):
    return max(mpf(0), -y * x[0]), [-y if y * x[0] <= 0 else mpf(0)]


def _sigmoid(x):
    return 1 / (1 + exp(-x))


def exact_focal(gamma=2.0, alpha=0.25):
    g = mpf(gamma)
    a, b = (1, 1) if alpha is None else (mpf(alpha), 1 - mpf(alpha))

    def exact(x, y):
        p, q = _sigmoid(x[0]), _sigmoid(-x[0])
        up, down = log1p(exp(x[0])), log1p(exp(-x[0]))
        value = a * y * q**g * down + b * (1 - y) * p**g * up
        slope = -a * y * q**g * (g * p * down + q) + b * (1 - y) * p**g * (g * q * up + p)
        return value, [slope]

    return exact


def exact_asymmetric(gamma_pos=1.0, gamma_neg=4.0, clip=0.05):
    g, h, m = mpf(gamma_pos), mpf(gamma_neg), mpf(clip)

    def exact(x, y):
        p, q = _sigmoid(x[0]), _sigmoid(-x[0])
        down = log1p(exp(-x[0]))
        value, slope = y * q**g * down, -y * q**g * (g * p * down + q)
        c = p - m
        if c > 0:
            nats = log1p(exp(x[0])) if m == 0 else -log(q + m)
            value += (1 - y) * c**h * nats
            slope += (1 - y) * p * q * c**h * (h * nats / c + 1 / (q + m))
        return value, [slope]

    return exact


def exact_kl(log_target=False):
    def exact(x, y):
        if log_target:
            return exp(y) * (y - x[0]), [-exp(y)]
        return (y * (log(y) - x[0]) if y else mpf(0)), [-y]

    return exact
