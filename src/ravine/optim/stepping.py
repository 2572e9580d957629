"""One step: its gradients, its numbers, and whether it is made at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ravine.engine.program import Program
from ravine.optim import nonfinite
from ravine.optim.buckets import Stale
from ravine.optim.following import follow
from ravine.optim.in_backward import InBackward, refuse_scaler
from ravine.optim.options import step_program
from ravine.optim.plan import Plan, wants_only_state
from ravine.optim.sharding import Ranks
from ravine.optim.totals import settle
from ravine.optim.watched import watched
from ravine.rules import Rule


class Stepping(torch.optim.Optimizer):
    """What an optimizer does at a step, and what it keeps from one step to the next."""

    rule: ClassVar[Rule]
    program: Program
    _plan: Plan | None
    _in_backward: InBackward | None
    _ranks: Ranks
    found_inf: Any = None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether a GradScaler may call a step to be left out, with found_inf and grad_scale set.

        Accelerate replaces `step` to learn from its calls which steps were made.
        """
        step = self.__dict__.get("step")
        return step is None or hasattr(step, "_wrapped_by_lr_sched")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name, value in (("_ranks", ()), ("_in_backward", None)):
            self.__dict__.setdefault(name, value)  # loading comes here too
        self.state = watched(self.state)
        self._changed()

    def _changed(self) -> None:
        """Forget what was made for groups and state as they were."""
        self._plan = None
        if self._in_backward is not None:
            self._in_backward.attend()
        elif any(group.get("in_backward") for group in self.param_groups):
            self._in_backward = InBackward(self)

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        common: dict[str, float] | None = {"norm": math.nan, "grad_scale": 1.0}
        if self.found_inf is not None:
            refuse_scaler(self)
            common = nonfinite.numbers_from_scaler(self)
        if self._in_backward is not None and not self._in_backward.finish():
            return loss
        plan = None if common is None else self._gathered()
        if common is None or plan is None:
            return loss
        if plan.needs_norm:
            squares = plan.squared_norm()
            if plan.skips and not nonfinite.is_finite(plan, squares):
                nonfinite.count(self.param_groups)
                return loss
            common["norm"] = _root(squares) / common["grad_scale"]
        if plan.follows:  # not sooner: a step left out is none of the schedule's
            self._follow_schedules(count=1)
        if plan.reduces:
            settle([b for b in plan.buckets if b.reduces and b.stepped()], common)
        for bucket in plan.buckets:
            bucket.run(common)
        if plan.shares:
            plan.share()
        return loss

    def _follow_schedules(self, count: int = 0) -> None:
        for group in self.param_groups:
            if group.get("schedule") is not None:
                follow(group, type(self).__name__)
                group["schedule_step"] += count

    def _begin(self) -> None:
        """Raise an error if no step can be made now."""

    def _gathered(self) -> Plan | None:
        """Return the plan with this step's gradients taken, made anew where it does not fit.

        None if the step is only there to have state made.
        """
        plan = self._plan
        if plan is not None and plan.fits(self.param_groups, self.state):
            try:
                for bucket in plan.buckets:
                    bucket.gather()
                return plan
            except Stale:
                pass
        self._plan = None  # should making one fail
        only_state = wants_only_state(self)
        self._follow_schedules()  # state may start as lr
        plan = self._make_plan()
        for bucket in plan.buckets:
            bucket.gather()
        self._plan = plan
        return None if only_state else plan

    def _make_plan(self, only: Tensor | None = None) -> Plan:
        """Return a plan of all groups, or of one weight; see `Plan`."""
        return Plan(self.rule, self.program, self.param_groups, self.state, self._ranks, only)

    def _read_scaled(self) -> None:
        """From now on take gradients that are multiplied by ``grad_scale``."""
        self.program = step_program(self.rule, scaled=True)
        self._plan = None


def _root(squares: Any) -> Any:
    # A tensor, where nothing may be read by the host: see `ravine.optim.capturable`.
    return squares.sqrt() if isinstance(squares, Tensor) else math.sqrt(squares)
