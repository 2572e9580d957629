"""The regularisers as a run is told of them: ``dropout(0.1)``, ``early_stopping(patience=5)``.

Each is a frozen dataclass that says what it does to a run; `Regularizer` lists the ways there are.
Their repr is the expression that makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ravine.errors import ArgumentError
from ravine.regularize import checks
from ravine.regularize.dropout_schedule import ScheduledDropout
from ravine.regularize.early_stopping import EarlyStopping, Mode, direction
from ravine.regularize.model_dropout import has_dropout, insert_dropout, set_dropout
from ravine.regularize.part import Part
from ravine.regularize.regularizer import Regularizer
from ravine.regularize.while_training import cutmix, ema, max_norm, mixup, sam, swa


@dataclass(frozen=True, repr=False)
class dropout(Regularizer):  # noqa: N801 (written as in an expression)
    """Dropout with probability p, in the layers the model has or else after its activations.

    Args:
        p: the probability of zero, in [0, 1]; or a schedule, a function of the step from 0 that
            returns it: ``dropout(linear(1000, start=0.0, end=0.3))``.
        seed: of the masks; left out, the run's.

    `prepare_model` calls `set_dropout`; on a model without dropout it calls `insert_dropout`, which
    raises where it finds no place. With p = 0 nothing is inserted.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> dropout(0.1).prepare_model(model)
    'dropout p=0.1 inserted after 1'
    >>> dropout(0.2).prepare_model(model)
    'dropout p=0.2 set in 1.1'
    """

    p: float | Callable[[int], float]
    seed: int | None = None

    def __post_init__(self) -> None:
        checks.probability("dropout: p", self.p(0) if callable(self.p) else self.p)
        if self.seed is not None:
            checks.seed_number("dropout: seed", self.seed)

    def prepare_model(self, model: nn.Module, *, seed: int = 0) -> str:
        seed = seed if self.seed is None else self.seed
        p = self.p(0) if callable(self.p) else self.p
        changed = (
            insert_dropout(model, p, seed=seed)
            if not has_dropout(model) and (p > 0 or callable(self.p))
            else set_dropout(model, p, seed=seed)
        )
        return f"{changed.note}, then by {self.p!r}" if callable(self.p) else changed.note

    def part(self, *, seed: int = 0) -> Part | None:
        return ScheduledDropout(self.p) if callable(self.p) else None


@dataclass(frozen=True, repr=False)
class early_stopping(Regularizer):  # noqa: N801
    """Stop when a metric has not improved for ``patience`` epochs; see `EarlyStopping`.

    >>> early_stopping(patience=3).stopper().patience
    3
    """

    patience: int = 5
    metric: str = "valid/loss"
    mode: Mode = "auto"
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        direction(self.metric, self.mode, where="early_stopping")
        self.stopper()

    def stopper(self) -> EarlyStopping:
        return EarlyStopping(
            self.patience, self.metric, self.mode, self.min_delta, self.restore_best
        )


@dataclass(frozen=True, repr=False)
class label_smoothing(Regularizer):  # noqa: N801
    """Cross-entropy against targets (1 - epsilon) one-hot + epsilon / classes.

    Args:
        epsilon: in [0, 1).

    >>> label_smoothing(0.1).loss_options()
    {'label_smoothing': 0.1}
    """

    epsilon: float

    def __post_init__(self) -> None:
        expected = "a number in [0, 1)"
        checks.number("label_smoothing: epsilon", self.epsilon, low=0, high=1, expected=expected)
        if self.epsilon == 1:
            raise ArgumentError(
                "label_smoothing: epsilon 1 leaves nothing of the target",
                got=repr(self.epsilon),
                expected=expected,
            )

    def loss_options(self) -> dict[str, Any]:
        return {"label_smoothing": float(self.epsilon)}


@dataclass(frozen=True, repr=False)
class clip_norm(Regularizer):  # noqa: N801
    """Scale the gradient down to this norm over all weights; see `clip_norm_`.

    Args:
        max_norm: finite, > 0.
    """

    max_norm: float

    def __post_init__(self) -> None:
        checks.positive("clip_norm: max_norm", self.max_norm)

    def optimizer_options(self) -> dict[str, Any]:
        return {"clip_norm": float(self.max_norm)}


@dataclass(frozen=True, repr=False)
class clip_value(Regularizer):  # noqa: N801
    """Limit each element of the gradient to [-max_value, max_value]; see `clip_value_`.

    Args:
        max_value: finite, > 0.
    """

    max_value: float

    def __post_init__(self) -> None:
        checks.positive("clip_value: max_value", self.max_value)

    def optimizer_options(self) -> dict[str, Any]:
        return {"clip_value": float(self.max_value)}


@dataclass(frozen=True, repr=False)
class l1(Regularizer):  # noqa: N801
    """The penalty strength sum |w|, in the optimizer's step.

    Args:
        strength: finite, >= 0.
        proximal: by a soft threshold after the step, which gives exact zeros.
    """

    strength: float
    proximal: bool = False

    def __post_init__(self) -> None:
        checks.not_negative("l1: strength", self.strength)

    def optimizer_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"l1": float(self.strength)}
        return options | ({"l1_proximal": True} if self.proximal else {})


@dataclass(frozen=True, repr=False)
class l2(Regularizer):  # noqa: N801
    """The penalty strength sum w^2 (gradient 2 strength w), in the optimizer's step.

    Args:
        strength: finite, >= 0.
    """

    strength: float

    def __post_init__(self) -> None:
        checks.not_negative("l2: strength", self.strength)

    def optimizer_options(self) -> dict[str, Any]:
        return {"l2": float(self.strength)}


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    each.__name__: each
    for each in (
        clip_norm, clip_value, cutmix, dropout, early_stopping, ema, l1, l2, label_smoothing,
        max_norm, mixup, sam, swa,
    )
}  # fmt: skip
"""What a ``--regularize`` expression can call."""
