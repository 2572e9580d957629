"""The schedule that listens to a metric instead of counting steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, SupportsIndex, final

from ravine.errors import ArgumentError
from ravine.schedules import checks
from ravine.schedules.base import Schedule

_STATE = ("reductions", "best", "bad", "cooling")


@final
@dataclass(frozen=True, repr=False)
class plateau(Schedule):  # noqa: N801
    """The learning rate is multiplied by a factor whenever a metric has stopped improving.

        lr <- max(lr * factor, min_lr)   after more than `patience` observations without a new best

    A value is a new best if it is, for mode "min" (for "max" with > and the other sign),

        value < best * (1 - threshold)   with threshold_mode "rel"
        value < best - threshold         with threshold_mode "abs"

    The step does not matter; `observe(value)` does, once an epoch as a rule. NaN is never a new
    best. A relative threshold assumes a metric that is never negative: below 0 it counts a value a
    little worse than the best as a new best (as torch does); use "abs" there.

    Args:
        lr: the learning rate at the start, finite and at least 0.
        factor: the multiplier, at least 0 and below 1.
        patience: how many observations in a row may bring no new best, at least 0.
        threshold: how much better a new best has to be, at least 0; "rel" with "min": below 1.
        threshold_mode: "rel" or "abs".
        cooldown: how many observations after a reduction are not counted as bad, at least 0.
        min_lr: the learning rate is not reduced below this; from 0 to `lr`.
        mode: "min" if the metric should fall, "max" if it should rise.
        eps: a reduction by this much or less is not made, at least 0.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> schedule = plateau(0.1, factor=0.5, patience=1)
        >>> for loss in [1.0, 0.9, 0.95, 0.95]:
        ...     schedule.observe(loss)
        >>> schedule(0)
        0.05
        >>> schedule.state_dict()
        {'reductions': 1, 'best': 0.9, 'bad': 0, 'cooling': 0}

    It has no end, so it comes last: ``warmup(100) >> plateau(1e-3)``. Equality and hash are those
    of the arguments, without the state. One plateau belongs to one run: two optimizers that share
    it both report to it; give each a `copy.deepcopy`. The state counts reductions, so a run that is
    resumed with another `lr` continues from that lr with as many reductions.

    Differs from torch's `ReduceLROnPlateau`, which gives the same numbers but cannot be joined with
    a warmup; from Keras's, which reduces one observation earlier (wait >= patience) and has an
    absolute threshold only; optax's scales the updates instead of the lr.
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    mode: str = "min"
    eps: float = 1e-8
    # The state stands in plain fields, not in an object of its own: LambdaLR copies the fields of
    # a schedule one level deep into its state, and a shared object would go on changing there.
    _reductions: int = field(default=0, init=False, compare=False)
    _best: float = field(default=math.inf, init=False, compare=False)
    _bad: int = field(default=0, init=False, compare=False)
    _cooling: int = field(default=0, init=False, compare=False)
    _lr_now: float = field(default=0.0, init=False, compare=False)

    def __post_init__(self) -> None:
        mode = checks.choice(self.mode, "mode of plateau", ("min", "max"))
        threshold_mode = checks.choice(
            self.threshold_mode, "threshold_mode of plateau", ("rel", "abs")
        )
        fraction = threshold_mode == "rel" and mode == "min"
        lr = checks.number(self.lr, "lr of plateau", least=0)
        self._store(
            lr=lr,
            factor=checks.number(self.factor, "factor of plateau", least=0, most=1, below=True),
            patience=checks.count(self.patience, "patience of plateau", least=0),
            threshold=checks.number(
                self.threshold,
                "threshold of plateau",
                least=0,
                most=1 if fraction else math.inf,
                below=fraction,
            ),
            cooldown=checks.count(self.cooldown, "cooldown of plateau", least=0),
            min_lr=checks.number(self.min_lr, "min_lr of plateau", least=0, most=lr),
            eps=checks.number(self.eps, "eps of plateau", least=0),
        )
        worst = math.inf if mode == "min" else -math.inf
        self._store_state(reductions=0, best=worst, bad=0, cooling=0)

    def equation(self, t: int) -> float:
        return self._lr_now

    def observe(self, value: SupportsFloat, *, step: SupportsIndex | None = None) -> None:
        """Count a value of the metric, and reduce the learning rate if it is time.

        Args:
            value: a number, or a tensor of one element; NaN is never a new best.
            step: not used here; a joined schedule uses it to tell only the piece in charge.

        Raises:
            ArgumentTypeError: the value is not a number.
        """
        seen = checks.metric(value)
        reductions, best, bad, cooling = self._reductions, self._best, self._bad + 1, self._cooling
        if self._is_better(seen):
            best, bad = seen, 0
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > self.patience:
            reductions, bad, cooling = reductions + 1, 0, self.cooldown
        self._store_state(reductions, best, bad, cooling)

    def _is_better(self, value: float) -> bool:
        relative = self.threshold_mode == "rel"
        if self.mode == "min":
            bound = self._best * (1 - self.threshold) if relative else self._best - self.threshold
            return value < bound
        bound = self._best * (1 + self.threshold) if relative else self._best + self.threshold
        return value > bound

    def _reduced(self, reductions: int) -> float:
        lr = self.lr
        for _ in range(reductions):
            lower = max(lr * self.factor, self.min_lr)
            if lr - lower <= self.eps:  # so will every later one be
                break
            lr = lower
        return lr

    def state_dict(self) -> dict[str, Any]:
        """Return the number of reductions, the best value, the bad ones since, and the cooldown."""
        return {name: getattr(self, "_" + name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ArgumentError: the state belongs to another schedule, or holds impossible numbers.
        """
        self._expect_state(state, _STATE)
        counts = {
            name: checks.count(state[name], f"{name} in the state of plateau", least=0)
            for name in ("reductions", "bad", "cooling")
        }
        best = checks.metric(state["best"])
        if math.isnan(best):
            raise ArgumentError("best in the state of plateau is NaN", expected="a number")
        self._store_state(best=best, **counts)

    def _store_state(self, reductions: int, best: float, bad: int, cooling: int) -> None:
        self._store(
            _reductions=reductions,
            _best=best,
            _bad=bad,
            _cooling=cooling,
            _lr_now=self._reduced(reductions),
        )
