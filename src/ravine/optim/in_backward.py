"""Optimizer in backward: a weight is stepped as soon as its gradient is there, which is then freed.

At no time more than a few gradients exist. What needs all of them at once cannot be had with it: a
norm over all weights, leaving out a step, the sum of several backward passes.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

from torch import Tensor

from ravine.errors import ArgumentError
from ravine.optim.buckets import Bucket, Stale, sums_model
from ravine.optim.plan import wants_only_state
from ravine.optim.totals import settle

_COMMON = {"norm": math.nan, "grad_scale": 1.0}
_INSTEAD = "leave in_backward out; the step after backward knows all gradients"


class InBackward:
    """The hooks of the weights of an optimizer's groups with ``in_backward``.

    They know the optimizer weakly: once nobody holds it, its weights are no longer stepped.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = weakref.ref(optimizer, lambda _: self._leave())
        self._hooks: dict[Tensor, Any] = {}
        self._ready: dict[Tensor, tuple[Bucket, Any]] = {}
        self._stepped: set[Tensor] = set()
        self._lock = threading.Lock()  # backward has a thread for each device
        self.attend()

    def _leave(self) -> None:
        while self._hooks:
            self._hooks.popitem()[1].remove()

    def attend(self) -> None:
        """Put the hooks where the groups say, after these or the state were changed."""
        self._leave()
        self._ready.clear()
        self._stepped.clear()
        optimizer = self._optimizer()
        refuse_what_needs_all(optimizer)
        for weight in _weights(optimizer):
            if weight.requires_grad:
                self._hooks[weight] = weight.register_post_accumulate_grad_hook(self._take)

    def finish(self) -> bool:
        """End a step: gradients that came without backward are taken, the next step may begin.

        Returns:
            Whether it was a step, and not the wish for state alone.
        """
        optimizer: Any = self._optimizer()
        refuse_what_needs_all(optimizer)
        weights = _weights(optimizer)
        if [id(w) for w in weights if w.requires_grad] != [*map(id, self._hooks)]:
            self.attend()
        given = [weight for weight in weights if weight.grad is not None]
        if wants_only_state(optimizer):
            for weight in given:
                self._bucket(optimizer, weight)
            return False
        for weight in given:
            self._take(weight)
        self._stepped.clear()
        return True

    def _take(self, weight: Any) -> None:
        optimizer = self._optimizer()
        if optimizer is None or weight.grad is None:
            return
        with self._lock:
            if weight in self._stepped:
                raise ArgumentError(
                    "a weight has a second gradient before optimizer.step()",
                    where=f"{type(optimizer).__name__} with in_backward=True, "
                    f"a weight of shape {tuple(weight.shape)}",
                    expected="one backward(), then one step(): the first gradient has been used",
                    do="call optimizer.step() after every backward(); to accumulate gradients, and "
                    "under DistributedDataParallel, which averages them too late, leave "
                    "in_backward out",
                )
            if not self._stepped:
                optimizer._begin()
                optimizer._follow_schedules()
            bucket = self._bucket(optimizer, weight)
            if bucket.reduces:
                settle([bucket], _COMMON)
            bucket.run(_COMMON)
            self._stepped.add(weight)
        weight.grad = None

    def _bucket(self, optimizer: Any, weight: Tensor) -> Bucket:
        """Return the bucket of one weight with its gradient taken, made anew where it does not fit."""
        found = self._ready.get(weight)
        if found is not None and found[1] is optimizer.state.get(weight) and not found[1].edits:
            bucket = found[0]
            try:
                bucket.gather()
                return bucket
            except Stale:
                pass
        refuse_what_needs_all(optimizer)
        made: Bucket = optimizer._make_plan(weight).buckets[0]
        made.gather()
        self._ready[weight] = made, optimizer.state[weight]  # not the plan: it knows every state
        return made


def _weights(optimizer: Any) -> list[Any]:
    groups = [group for group in optimizer.param_groups if group.get("in_backward")]
    return [weight for group in groups for weight in group["params"]]


def refuse_what_needs_all(optimizer: Any) -> None:
    """Raise an error if a group asks for what only a step after backward can do."""
    for group in optimizer.param_groups:
        for option, idle in (("clip_norm", None), ("skip_nonfinite", False)):
            if group.get(option, idle) != idle:
                raise ArgumentError(
                    f"{option} cannot be used with in_backward=True",
                    where=type(optimizer).__name__,
                    got=f"{option}={group[option]!r}",
                    expected=f"{option}={idle}: a weight is stepped before the gradients of the "
                    "others are known",
                    do=_INSTEAD + ("" if idle is False else ", or use clip_value"),
                )
        if "norm" not in optimizer.rule.equation.hyperparameters and not sums_model(
            optimizer.program, group
        ):
            continue
        raise ArgumentError(
            f"the rule {optimizer.rule.name} cannot be used with in_backward=True",
            expected="a rule that does not ask for the gradients of all weights",
            do=_INSTEAD,
        )


def refuse_scaler(optimizer: Any) -> None:
    """Raise an error if a GradScaler makes the step of weights that backward has stepped."""
    if any(group.get("in_backward") for group in optimizer.param_groups):
        raise ArgumentError(
            "a GradScaler cannot be used with in_backward=True",
            where=type(optimizer).__name__,
            expected="a loss that is not scaled: backward has stepped the weights already",
            do="use autocast with bfloat16, which needs no scaler, or leave in_backward out",
        )
