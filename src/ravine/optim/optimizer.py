"""The one optimizer class: torch's interface around a rule's program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
import torch.optim.optimizer as torch_optimizer
from torch._compile import _disable_dynamo
from torch.compiler import is_dynamo_compiling

from ravine.engine.equation import REQUIRED
from ravine.errors import ArgumentError, ArgumentTypeError, taken_name, unknown_option
from ravine.optim import (
    average,
    description,
    lean_state,
    loading,
    nonfinite,
    saved_state,
    signature,
)
from ravine.optim.groups import completed
from ravine.optim.options import AVERAGE, step_program
from ravine.optim.sharding import gradient_norm, ranks_of_owner
from ravine.optim.stepping import Stepping
from ravine.optim.torch_ways import TORCH_WAYS, translated
from ravine.optim.untraced import untraced, unwrapped
from ravine.optim.watched import watched
from ravine.rules import Rule

_RUNTIME = ("t", "norm")
_add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)
_OF_THE_STEP: dict[str, Any] = {
    "skip_nonfinite": False, "in_backward": False, "capturable": False, "backend": "auto",
}  # fmt: skip
_TAKEN = {
    "self", "params", "param_names", "initial_lr", "schedule", "schedule_step", "grad_scale",
    nonfinite.SKIPPED, AVERAGE, *_OF_THE_STEP, *lean_state.LEAN_OPTIONS, *TORCH_WAYS,
}  # fmt: skip
"""What a group holds, or torch or a step gives, under names that a rule cannot mean itself."""


class Optimizer(Stepping):
    """A `torch.optim.Optimizer` that runs a rule's equation, and every option, in one pass.

    Use one of its subclasses (`ravine.optim.Adam`, ...) or make one with `ravine.update_rule`.

    Args:
        params: weights, named weights, or groups of them, as torch takes them.
        values: lr, and further options in torch's order where torch has an optimizer of this name.
        lr: a number >= 0 or a schedule, which is asked at every step.
        options: the rule's hyperparameters, and for every rule

            * ``clip_norm``: largest norm of the gradient over all weights (torch's formula),
            * ``clip_value``: largest absolute value of its elements,
            * ``l2``: adds the penalty l2 sum w^2 (gradient 2 l2 w),
            * ``l1``: adds the penalty l1 sum abs(w), by its subgradient or, with
              ``l1_proximal=True``, by a soft threshold lr l1 after the step (exact zeros); the
              threshold is the same for every weight, also under Adam's root or with momentum,
            * ``weight_decay`` with ``decay``: "coupled" (g + weight_decay w), "decoupled"
              (w - lr weight_decay w) or "independent" (w - weight_decay w),
            * ``cautious``: keep of a step what goes against the gradient, lengthened by what was
              left out, tensor by tensor (Liang et al. 2024; the mean is 1e-3 at least, as theirs);
              schedule-free rules refuse it and ``l1_proximal``: their average would not follow,
            * ``average``: decay of an exponential average of the weights, see `averaged`,
            * ``maximize``: climb instead of descend,
            * ``state_dtype``, ``stochastic_rounding``, ``rounding_seed``: state in fewer bytes, and
              bfloat16 weights that do not lose small steps, see `ravine.optim.lean_state`,
            * ``skip_nonfinite``: if any gradient of any weight is NaN or infinite, leave the step out:
              weights, state and schedules stay as they are, see `skipped_steps`,
            * ``in_backward``: step each weight as soon as backward has its gradient, and free that;
              `step` then only ends the step,
            * ``capturable``: read nothing on the host, so that a CUDA graph can hold the step: numbers
              of the step are tensors, the equations plain PyTorch operations. lr may be a tensor on the
              weights' device, which the graph then reads anew,
            * ``backend``: "auto", "cpu", "gpu" or "reference", see `explain`,
            * ``foreach`` and ``fused`` of torch are taken and change nothing: every step is fused;
              ``decoupled_weight_decay=True`` is ``decay="decoupled"``; ``differentiable`` is taken as
              False only.

    The gradient ``p.grad`` is never changed. Weights in bfloat16 or float16 are computed, and keep
    their state, in float32 (torch keeps it in the weight's type).

    Raises:
        ArgumentError: a value out of its bounds. UnknownOptionError: a misspelt option.
    """

    options: ClassVar[dict[str, Any]]
    positional: ClassVar[dict[str, Any]] = {}  # what may be given without its name
    moments: ClassVar[dict[str, str]]  # the kinds of moments, by their names in the state

    def __init_subclass__(cls, rule: Rule | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if rule is not None:
            for name in (*rule.hyperparameters, *rule.numbers, *rule.shared):
                if name in _TAKEN:
                    raise taken_name(f"update rule {rule.equation.name!r}", name, _TAKEN)
            cls.rule = rule
            cls.program = step_program(rule)
            cls.moments = {rule.state_names.get(n, n): k for n, k in rule.moments.items()}
            hyperparameters = {**rule.equation.hyperparameters, **cls.program.hyperparameters}
            cls.options = {
                name: default
                for name, default in hyperparameters.items()
                if name not in {*_RUNTIME, *rule.numbers, *rule.shared}
            } | {**_OF_THE_STEP, **lean_state.LEAN_OPTIONS, **rule.defaults}

    def __init__(self, params: Any, *values: Any, **options: Any) -> None:
        name = type(self).__name__
        if not hasattr(type(self), "rule"):
            raise ArgumentTypeError(
                "Optimizer has no rule of its own",
                do="use one of ravine.optim's classes, or ravine.update_rule on an equation",
            )
        options |= signature.by_name(name, self.positional, values, options)
        for option in options:
            if option not in self.options and option not in TORCH_WAYS:
                raise unknown_option(name, option, self.options)
        defaults = {**self.options, **translated(options, name)}
        missing = [option for option, value in defaults.items() if value is REQUIRED]
        if missing:
            raise ArgumentError(
                f"{name} needs a value for {', '.join(missing)}",
                do=f"write {name}(params, {', '.join(f'{m}=...' for m in missing)})",
            )
        self._plan = None
        self._in_backward = None
        self._ranks = ranks_of_owner(self)
        super().__init__(params, defaults)
        self.state = watched(self.state)

    # -- groups -------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own; what is not named has the optimizer's value."""
        if isinstance(param_group, dict):
            param_group = completed(self, param_group)
        _add_param_group(self, param_group)
        self._changed()

    def observe(self, metric: float) -> None:
        """Tell the schedules that listen (``plateau``) a value of the metric, once an epoch."""
        for group in self.param_groups:
            schedule = group.get("schedule")
            if schedule is not None:
                schedule.observe(metric, step=group["schedule_step"])

    # -- the step -----------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every weight that has a gradient.

        Args:
            closure: computes the loss anew and calls backward, as torch's.

        Inside of a compiled function the step is one clean break of the graph: it already is one
        pass, and nothing is traced or compiled anew when lr changes.

        Returns:
            What the closure returned, or None.
        """
        if is_dynamo_compiling():
            return _untraced_step(self, closure)
        if (
            self._optimizer_step_pre_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        ):
            return _observed_step(self, closure)
        result = self._step(closure)
        # Without torch's record for a profiler, which costs 10 us, and 50 where it is not in a cache.
        for hook in list(self._optimizer_step_post_hooks.values()):
            hook(self, (self,) if closure is None else (self, closure), {})
        return result

    step.hooked = True  # type: ignore[attr-defined]  # torch's wrapper costs 6 us; see above

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of the gradients, or fill them with zeros, as torch's."""
        if not set_to_none or is_dynamo_compiling() or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:  # torch's own takes 7 us for 6 tensors, this 0.5
            for weight in group["params"]:
                weight.grad = None

    # -- what a person asks -------------------------------------------------------------------

    @property
    def skipped_steps(self) -> int:
        """How many steps were left out because a gradient was NaN or infinite."""
        return nonfinite.skipped_steps(self.param_groups)

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights, those of other processes included."""
        weights = (w for group in self.param_groups for w in group["params"])
        return gradient_norm(weights, self._ranks)

    @property
    def averages(self) -> bool:
        """Whether there are other weights to evaluate with, which `averaged` puts in place."""
        return any(group["average"] is not None for group in self.param_groups)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights in the place of the weights, until the block ends.

        Raises:
            ArgumentError: the optimizer was made without ``average``.
        """
        return average.in_place(self)

    def explain(self) -> str:
        """Say how the weights are stepped, and why so.

        Before the first step this looks at the weights as if each had a gradient.
        """
        return description.explain(self, self.program, self._plan)

    def expression(self) -> str:
        """Return the call that makes this optimizer, with the options that are not the default."""
        return description.expression(self, self.options)

    def __repr__(self) -> str:
        return f"{self.expression()}  # {description.facts(self, self._plan)}"

    # -- saving and loading -------------------------------------------------------------------

    @untraced
    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch does; a schedule is written as its expression."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = saved_state.packed(self)
        for after in self._optimizer_state_dict_post_hooks.values():
            state = _or(after(self, state), state)
        return state

    @untraced
    def load_state_dict(self, state_dict: dict[str, Any], *, keep: Collection[str] = ()) -> None:
        """Load what `state_dict`, or the torch optimizer of the same rule, has returned.

        Weights are matched by name where both sides were made with names (in any order), else by
        position. Either everything is loaded or, after an error, nothing.

        Args:
            state_dict: the state.
            keep: options whose present values stay, such as ``keep=["lr"]`` to go on with a new one.

        Raises:
            ArgumentError: another algorithm's state, other groups, or other weights.
            ShapeError: a state of another shape than its weight.
        """
        state_dict = state_dict.copy()  # hooks may change it, as torch's
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = _or(before(self, state_dict), state_dict)
        state, groups = loading.read(self, state_dict, keep)
        for group in groups:
            saved_state.resume_schedule(group)
        self.__setstate__({"state": state, "param_groups": groups})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)


def _or(result: Any, otherwise: Any) -> Any:
    return otherwise if result is None else result


_observed_step: Callable[..., Any] = torch.optim.Optimizer.profile_hook_step(Optimizer._step)
_untraced_step: Callable[..., Any] = _disable_dynamo(Optimizer.step)
