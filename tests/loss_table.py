"""One row for every loss and set of options, each with an oracle that shares no code with it.

A new loss needs one row here and gets the whole suite. The oracle returns the loss of each sample in
float64 by torch or by a formula written out; `mean` says what torch's mean is where torch has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import torch
import torch.nn.functional as F
from elementwise_rows import ELEMENTWISE
from loss_row import INF, LOGITS, Pair, Row, probabilities, regression, signs
from torch import Tensor

CLASSES = 5


def classes(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    return (torch.randn(*shape, CLASSES) * 3).to(kind), torch.randint(CLASSES, shape)


def soft(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    wide = torch.float64 if kind is torch.float64 else torch.float32
    y = torch.softmax(torch.randn(*shape, CLASSES, dtype=torch.float64), -1).to(wide)
    return (torch.randn(*shape, CLASSES) * 3).to(kind), y


def crammer_singer(x: Tensor, y: Tensor) -> Tensor:
    own = torch.gather(x, -1, y[..., None])[..., 0]
    others = torch.where(F.one_hot(y, x.shape[-1]).bool(), -torch.inf, x)
    return F.relu(1 + others.max(-1).values - own)


def by_torch(**options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torch's cross-entropy with the classes moved to where torch has them."""
    weight = options.pop("class_weight", None)
    if weight is not None:
        options["weight"] = torch.tensor(weight, dtype=torch.float64)
    options = {"reduction": "none", **options}

    def oracle(x: Tensor, y: Tensor) -> Tensor:
        if y.is_floating_point() and y.ndim > 1:
            y = y.movedim(-1, 1)
        return F.cross_entropy(x.movedim(-1, 1) if x.ndim > 1 else x, y, **options)

    return oracle


def exact_mse(x, y):
    e = x[0] - y
    return e * e, [2 * e]


def exact_huber(delta):
    def exact(x, y):
        e = x[0] - y
        if abs(e) <= delta:
            return e * e / 2, [e]
        return delta * (abs(e) - mpmath.mpf(delta) / 2), [delta * mpmath.sign(e)]

    return exact


def exact_bce(x, y):
    sigmoid = 1 / (1 + mpmath.exp(-x[0]))
    loss = y * mpmath.log1p(mpmath.exp(-x[0])) + (1 - y) * mpmath.log1p(mpmath.exp(x[0]))
    return loss, [sigmoid - y]


def exact_hinge(x, y):
    margin = 1 - y * x[0]
    return (margin, [-y]) if margin > 0 else (mpmath.mpf(0), [mpmath.mpf(0)])


def exact_crammer_singer(x, y):
    rivals = [v for k, v in enumerate(x) if k != y]
    rival = next(k for k, v in enumerate(x) if k != y and v == max(rivals))
    margin = 1 + max(rivals) - x[y]
    slopes = [mpmath.mpf(0)] * len(x)
    if margin <= 0:
        return mpmath.mpf(0), slopes
    slopes[rival], slopes[y] = mpmath.mpf(1), mpmath.mpf(-1)
    return margin, slopes


def exact_cross_entropy(smoothing=0.0, class_weight=None):
    def exact(x, y):
        count = len(x)
        chances = y if isinstance(y, (list, tuple)) else [float(k == y) for k in range(count)]
        weights = class_weight or [1.0] * count
        top = max(x)
        total = mpmath.fsum(mpmath.exp(v - top) for v in x)
        parts = [
            w * ((1 - mpmath.mpf(smoothing)) * c + mpmath.mpf(smoothing) / count)
            for w, c in zip(weights, chances, strict=True)
        ]
        mass = mpmath.fsum(parts)
        # log(sum) - x as a sum of positive terms needs no more digits than mpmath has
        loss = mpmath.fsum(
            a * (mpmath.log(total) - (v - top)) for a, v in zip(parts, x, strict=True)
        )
        slopes = [mass * mpmath.exp(v - top) / total - a for a, v in zip(parts, x, strict=True)]
        return loss, slopes

    return exact


CONFIDENT = (
    *(((v, 0.0, 0.0, 0.0, 0.0), 0) for v in (17.0, 50.0, 88.0, 100.0, 1e9)),
    *(((v, 0.0, 0.0, 0.0, 0.0), 1) for v in (17.0, 50.0, 104.0, 1e9)),
    *(((-v, 0.0, 0.0, 0.0, 0.0), 0) for v in (17.0, 88.0, 1e9)),
    ((1e9, 1e9, -1e9, 0.0, 17.0), 1),
    ((0.0, 0.0, 0.0, 0.0, 0.0), 3),
)

ROWS: list[Row] = [
    Row(
        "mse",
        {},
        regression,
        lambda x, y: F.mse_loss(x, y, reduction="none"),
        exact_mse,
        tuple(((x,), y) for x in LOGITS for y in (0.0, 1.0, 17.0)),
        mean=F.mse_loss,
        ulp=(2.0, 1.0),
        infinite=(((INF,), 0.0, INF, (INF,)), ((-INF,), 0.0, INF, (-INF,))),
    ),
    *(
        Row(
            "huber",
            {} if delta == 1 else {"delta": delta},
            regression,
            lambda x, y, delta=delta: F.huber_loss(x, y, reduction="none", delta=delta),
            exact_huber(delta),
            tuple(((x,), y) for x in LOGITS for y in (0.0, 0.5)),
            mean=lambda x, y, delta=delta: F.huber_loss(x, y, delta=delta),
            ulp=(2.0, 1.0),
            infinite=(((INF,), 0.0, INF, (delta,)), ((-INF,), 0.0, INF, (-delta,))),
        )
        for delta in (1.0, 0.25)
    ),
    Row(
        "binary_cross_entropy",
        {},
        probabilities,
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
        exact_bce,
        tuple(((x,), y) for x in LOGITS for y in (0.0, 1.0, 0.25)),
        mean=F.binary_cross_entropy_with_logits,
        ulp=(1.5, 2.0),
        infinite=(
            ((INF,), 1.0, 0.0, (0.0,)),
            ((INF,), 0.0, INF, (1.0,)),
            ((-INF,), 0.0, 0.0, (0.0,)),
            ((-INF,), 1.0, INF, (-1.0,)),
        ),
        unusable=(1.5, "a probability: 0, 1 or a number between"),
    ),
    Row(
        "hinge",
        {},
        signs,
        lambda x, y: F.relu(1 - y * x),
        exact_hinge,
        tuple(((x,), y) for x in LOGITS for y in (-1.0, 1.0)),
        ulp=(1.0, 0.0),
        infinite=(((INF,), 1.0, 0.0, (0.0,)), ((INF,), -1.0, INF, (1.0,))),
        unusable=(0.0, "-1 or +1"),
    ),
    Row(
        "hinge",
        {},
        classes,
        crammer_singer,
        exact_crammer_singer,
        CONFIDENT,
        ulp=(1.0, 0.0),
        rows=True,
        infinite=(
            ((INF, 0.0, 0.0), 0, 0.0, (0.0, 0.0, 0.0)),
            ((INF, 0.0, 0.0), 1, INF, (1.0, -1.0, 0.0)),
            ((0.0, -INF, -INF), 0, 0.0, (0.0, 0.0, 0.0)),
            ((INF, INF, 0.0), 0, 1.0, (-1.0, 1.0, 0.0)),
        ),
        extra={"kind": "classes"},
    ),
    Row(
        "cross_entropy",
        {},
        classes,
        by_torch(),
        exact_cross_entropy(),
        CONFIDENT,
        mean=by_torch(reduction="mean"),
        ulp=(1.5, 1.5),
        rows=True,
        infinite=(
            ((INF, 0.0, 0.0), 0, 0.0, (0.0, 0.0, 0.0)),
            ((0.0, -INF, -INF), 0, 0.0, (0.0, 0.0, 0.0)),
            ((0.0, -INF, -INF), 1, INF, (1.0, -1.0, 0.0)),
        ),
    ),
    *(
        Row(
            "cross_entropy",
            options,
            make,
            by_torch(**options),
            exact_cross_entropy(options.get("label_smoothing", 0.0), options.get("class_weight")),
            tuple(
                (x, y if make is classes else tuple(0.6 if k == y else 0.1 for k in range(5)))
                for x, y in CONFIDENT
                if abs(x[0]) < 1e9
            ),
            mean=None
            if make is soft and "class_weight" in options
            else by_torch(reduction="mean", **options),
            ulp=(2.0, 12.5),
            rows=True,
            extra={"kind": "soft" if make is soft else ""},
        )
        for make, options in (
            (classes, {"label_smoothing": 0.1}),
            (classes, {"class_weight": [0.5, 2.0, 1.0, 0.25, 3.0]}),
            (classes, {"class_weight": [0.5, 2.0, 1.0, 0.25, 3.0], "label_smoothing": 0.2}),
            (soft, {}),
            (soft, {"class_weight": [0.5, 2.0, 1.0, 0.25, 3.0], "label_smoothing": 0.2}),
        )
    ),
    *ELEMENTWISE,
]

from loss_table_classes import CLASS_ROWS  # noqa: E402 (needs what is above)

ROWS += CLASS_ROWS
