"""Stops a run whose metric no longer improves, and brings back the best weights."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError, unknown_name
from ravine.regularize.checks import count, not_negative
from ravine.regularize.dropout import Dropout

Mode = Literal["min", "max", "auto"]

_FALLING = {
    "loss", "error", "err", "mse", "mae", "rmse", "nll", "perplexity", "entropy", "deviance",
}  # fmt: skip
_RISING = {
    "accuracy", "acc", "f1", "auc", "auroc", "precision", "recall", "r2", "score", "iou", "dice",
}  # fmt: skip


def direction(metric: str, mode: str, *, where: str = "EarlyStopping") -> Literal["min", "max"]:
    """Return which way a metric improves; "auto" goes by the words of its name.

    >>> direction("valid/loss", "auto"), direction("valid/accuracy", "auto")
    ('min', 'max')
    """
    if mode not in ("min", "max", "auto"):
        raise ArgumentError(f"unknown mode {mode!r}", where=where, expected="one of min, max, auto")
    if mode != "auto":
        return "min" if mode == "min" else "max"
    words = set(re.split(r"[^a-z0-9]+", metric.lower()))
    if bool(words & _FALLING) == bool(words & _RISING):
        raise ArgumentError(
            f"the name of the metric {metric!r} does not say whether lower is better",
            where=where,
            got="mode='auto'",
            expected="mode='min' or mode='max'",
        )
    return "min" if words & _FALLING else "max"


class EarlyStopping:
    """Ask after every epoch whether to stop: when the metric has not improved for a while.

    An epoch improves if its metric is finite and, for mode "min", below best - min_delta (for
    "max", above best + min_delta). After ``patience`` epochs in a row that do not, `observe`
    returns True. NaN and infinity never improve: they are waited out as any bad epoch.

    Args:
        patience: epochs without improvement that end the run, >= 1.
        metric: the name of the metric among those observed.
        mode: "min", "max", or "auto": by the words of the name (loss, error: min; accuracy, score:
            max; a name that says neither is refused).
        min_delta: what counts as an improvement, in the units of the metric; finite, >= 0.
        restore_best: keep a copy of the weights of the best epoch, for `restore`.

    Raises:
        ArgumentError: a value out of its bounds, or "auto" on a name that does not tell.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> stopper = EarlyStopping(patience=2)
        >>> [stopper.observe({"valid/loss": loss}, model) for loss in (3.0, 1.0, 1.5, 1.2)]
        [False, False, False, True]
        >>> stopper.best, stopper.best_epoch
        (1.0, 2)
        >>> stopper.restore(model)
        True

    Differs from Keras: patience=0 is refused (Keras stops at the first bad epoch, as patience=1
    here), a missing metric is an error, and the best weights come back by `restore`, at whatever
    epoch the run ends. torch and optax have none.

    Source: Prechelt 1998, "Early stopping - but when?", the criterion UP.
    """

    def __init__(
        self,
        patience: int = 5,
        metric: str = "valid/loss",
        mode: Mode = "auto",
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.patience = count("EarlyStopping: patience", patience, low=1)
        if not isinstance(metric, str) or not metric:
            raise ArgumentTypeError("EarlyStopping: metric is not a name", got=repr(metric))
        self.metric = metric
        self.mode = direction(metric, mode)
        self.min_delta = not_negative("EarlyStopping: min_delta", min_delta)
        self.restore_best = restore_best
        self.epoch = 0
        """How many epochs were observed."""
        self.best: float | None = None
        """The best value so far, None before the first finite one."""
        self.best_epoch: int | None = None
        """The epoch of the best value, counted from 1."""
        self.waited = 0
        """Epochs without improvement in a row."""
        self._weights: dict[str, Any] = {}

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up."""
        return self.waited >= self.patience

    @property
    def message(self) -> str:
        """What was seen, in one sentence."""
        if self.best is None:
            return f"{self.metric} was never finite in {self.epoch} epochs"
        least = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{self.metric} has not improved{least} for {self.waited} epochs: "
            f"best {self.best:.6g} at epoch {self.best_epoch}"
        )

    def observe(self, metrics: Mapping[str, float], model: nn.Module | None = None) -> bool:
        """Look at the metrics of one epoch; return True if the run should stop.

        Args:
            metrics: values by name; `metric` must be among them.
            model: whose weights are kept at an improvement; needed for ``restore_best``.

        Raises:
            UnknownNameError: the metric is not among ``metrics``.
            ArgumentTypeError: no model with ``restore_best``.
        """
        if self.metric not in metrics:
            raise unknown_name("metric", self.metric, metrics, where="EarlyStopping(metric=...)")
        if self.restore_best and not isinstance(model, nn.Module):
            raise ArgumentTypeError(
                "EarlyStopping needs the model to keep its best weights",
                got=repr(model),
                do="call observe(metrics, model), or make it with restore_best=False",
            )
        value = float(metrics[self.metric])
        self.epoch += 1
        if self._improves(value):
            self.best, self.best_epoch, self.waited = value, self.epoch, 0
            if self.restore_best and model is not None:
                self._keep(model)
        else:
            self.waited += 1
        return self.stopped

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta

    def _keep(self, model: nn.Module) -> None:
        # Masks are part of the run and not of the model: their counters are never taken back.
        streams = {
            f"{name}.stream" if name else "stream"
            for name, module in model.named_modules()
            if isinstance(module, Dropout)
        }
        kept = {}
        for name, value in model.state_dict().items():
            if name in streams:
                continue
            old = self._weights.get(name)
            if isinstance(value, Tensor) and isinstance(old, Tensor) and _alike(value, old):
                kept[name] = old.copy_(value)
            elif isinstance(value, Tensor):
                kept[name] = value.detach().clone()
            else:
                kept[name] = copy.deepcopy(value)
        self._weights = kept

    def restore(self, model: nn.Module) -> bool:
        """Put the weights of the best epoch into the model; return False if there was none yet.

        Raises:
            ArgumentError: made with ``restore_best=False``.
        """
        if not self.restore_best:
            raise ArgumentError(
                "no best weights were kept", where="EarlyStopping", got="restore_best=False"
            )
        if self.best_epoch is None:
            return False
        model.load_state_dict(self._weights)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, the best weights included, for a checkpoint."""
        return {**{name: getattr(self, name) for name in _STATE}, "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the run that wrote this state was.

        Raises:
            ArgumentError: the state is of another metric or mode.
        """
        for name in ("metric", "mode"):
            if state[name] != getattr(self, name):
                raise ArgumentError(
                    f"the state of early stopping is of another {name}",
                    got=repr(state[name]),
                    expected=repr(getattr(self, name)),
                    do="start the run anew, or use the options that it was started with",
                )
        for name in _STATE:
            setattr(self, name, state[name])
        self._weights = {
            name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
            for name, value in state["weights"].items()
        }

    def __repr__(self) -> str:
        return (
            f"EarlyStopping(patience={self.patience}, metric={self.metric!r}, mode={self.mode!r}, "
            f"min_delta={self.min_delta!r}, restore_best={self.restore_best!r})"
            f"  # best {self.best} at epoch {self.best_epoch}, waited {self.waited}"
        )


_STATE = ("metric", "mode", "epoch", "best", "best_epoch", "waited")


def _alike(value: Tensor, old: Tensor) -> bool:
    return bool(
        type(old) is torch.Tensor
        and (old.shape, old.dtype, old.device) == (value.shape, value.dtype, value.device)
    )
