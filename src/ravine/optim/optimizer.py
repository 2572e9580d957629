"""The one optimizer class: torch's interface around a rule's program."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from operator import is_
from typing import Any, ClassVar

import torch
import torch.optim.optimizer as torch_optimizer
from torch import Tensor

from ravine.engine.choice import choose
from ravine.engine.equation import REQUIRED
from ravine.engine.norm import squared_norm
from ravine.engine.program import Program
from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError, unknown_option
from ravine.optim import schedule_state
from ravine.optim.bounds import check_bounds
from ravine.optim.buckets import (
    Bucket,
    CompiledBucket,
    Group,
    Member,
    ReferenceBucket,
    Stale,
    executor,
    needed_state,
)
from ravine.optim.options import AVERAGE, OPTIONS, step_program
from ravine.rules import Rule
from ravine.schedules import Schedule, as_schedule

_RUNTIME = ("t", "norm")
_DECOUPLED = "decoupled_weight_decay"  # how torch's Adam says decay="decoupled"
_HALF = (torch.bfloat16, torch.float16)


class Optimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that runs a rule's equation, and every option, in one pass.

    Use one of its subclasses (`ravine.optim.Adam`, ...) or make one with `ravine.update_rule`.

    Args:
        params: weights, named weights, or groups of them, as torch takes them.
        lr: a number >= 0 or a schedule, which is asked at every step.
        options: the rule's hyperparameters, and for every rule

            * ``clip_norm``: largest norm of the gradient over all weights (torch's formula),
            * ``clip_value``: largest absolute value of its elements,
            * ``l2``: adds the penalty l2 sum w^2 (gradient 2 l2 w),
            * ``l1``: adds the penalty l1 sum abs(w), by its subgradient or, with
              ``l1_proximal=True``, by a soft threshold lr l1 after the step (exact zeros),
            * ``weight_decay`` with ``decay``: "coupled" (g + weight_decay w), "decoupled"
              (w - lr weight_decay w) or "independent" (w - weight_decay w),
            * ``average``: decay of an exponential average of the weights, see `averaged`,
            * ``maximize``: climb instead of descend,
            * ``backend``: "auto", "cpu", "gpu" or "reference", see `explain`.

    The gradient ``p.grad`` is never changed. Weights in bfloat16 or float16 are computed, and keep
    their state, in float32 (torch keeps it in the weight's type).

    Raises:
        ArgumentError: a value out of its bounds. UnknownOptionError: a misspelt option.
    """

    rule: ClassVar[Rule]
    program: ClassVar[Program]
    options: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, rule: Rule | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if rule is not None:
            cls.rule = rule
            cls.program = step_program(rule)
            hyperparameters = {**rule.equation.hyperparameters, **cls.program.hyperparameters}
            cls.options = {
                name: default for name, default in hyperparameters.items() if name not in _RUNTIME
            } | {"backend": "auto", **rule.defaults}

    def __init__(self, params: Any, lr: Any = REQUIRED, **options: Any) -> None:
        name = type(self).__name__
        if not hasattr(type(self), "rule"):
            raise ArgumentTypeError(
                "Optimizer has no rule of its own",
                do="use one of ravine.optim's classes, or ravine.update_rule on an equation",
            )
        if lr is not REQUIRED:
            options["lr"] = lr
        for option in options:
            if option not in self.options:
                raise unknown_option(name, option, self.options)
        defaults = {**self.options, **options}
        missing = [option for option, value in defaults.items() if value is REQUIRED]
        if missing:
            raise ArgumentError(
                f"{name} needs a value for {', '.join(missing)}",
                do=f"write {name}(params, {', '.join(f'{m}=...' for m in missing)})",
            )
        self._buckets: list[Bucket] | None = None
        self._waiting: list[Tensor] = []
        self._needs_norm = False
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._buckets = None
        self._waiting = []

    # -- groups -------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own; what is not named has the optimizer's value."""
        if isinstance(param_group, dict):
            where = f"{type(self).__name__}, group {len(self.param_groups)}"
            for option in param_group:
                # A group may carry notes of its owner's; only a near miss is taken for an error.
                known = option in self.options or option in ("params", "param_names")
                close = get_close_matches(option, self.options, n=1, cutoff=0.82)
                if not known and close and not option.startswith(("initial_", "max_", "swa_")):
                    raise unknown_option(f"{where}:", option, self.options)
            param_group = {**self.defaults, **param_group}
            lr = param_group["lr"]
            if isinstance(lr, Schedule):
                param_group["schedule"] = as_schedule(lr)
                param_group["schedule_step"] = 0
                param_group["lr"] = param_group["schedule"](0)
            check_bounds(
                {name: param_group[name] for name in self.options},
                where=where,
                defaults=self.options,
                free=self.rule.equation.hyperparameters.keys() & OPTIONS,
            )
            if self.rule.check is not None:
                self.rule.check(param_group)
        super().add_param_group(param_group)
        self._buckets = None

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

        Returns:
            What the closure returned, or None.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        ):
            return _observed_step(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch's wrapper costs 6 us; see above

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group.get("schedule") is not None:
                self._follow_schedule(group)
        buckets = self._gathered()
        norm = math.nan
        if self._needs_norm:
            norm = math.sqrt(sum(bucket.squared_norm() for bucket in buckets))
        for bucket in buckets:
            bucket.run(norm)
        return loss

    def _follow_schedule(self, group: Group) -> None:
        if "initial_lr" in group:
            raise ArgumentError(
                "two schedules set the learning rate",
                where=f"{type(self).__name__}, lr",
                got=f"{group['schedule']!r} as lr, and a torch.optim.lr_scheduler",
                do="give lr as a number, or leave torch's scheduler out",
            )
        group["lr"] = group["schedule"](group["schedule_step"])
        group["schedule_step"] += 1

    def _gathered(self) -> list[Bucket]:
        """Return the buckets with this step's gradients taken, made anew where they do not fit."""
        if (
            self._buckets is not None
            and self._is_as_seen()
            and all([p.grad is None for p in self._waiting])  # noqa: C419
        ):
            try:
                for bucket in self._buckets:
                    bucket.gather()
                return self._buckets
            except Stale:
                pass
        self._make_buckets()
        buckets: list[Bucket] = self._buckets or []
        for bucket in buckets:
            bucket.gather()
        return buckets

    def _is_as_seen(self) -> bool:
        """Whether groups and state are those the buckets were made of; people do edit them."""
        return (
            self.state is self._seen_state
            and len(self.state) == self._seen_states
            and len(self.param_groups) == len(self._seen_params)
            and all(
                len(group["params"]) == len(seen) and all(map(is_, group["params"], seen))
                for group, seen in zip(self.param_groups, self._seen_params, strict=True)
            )
        )

    def _make_buckets(self) -> None:
        self._buckets = None
        self._waiting = []
        self._needs_norm = "norm" in self.rule.equation.hyperparameters
        shared: dict[tuple[Any, ...], list[Member]] = {}
        plans: dict[tuple[Any, ...], tuple[str, Any, str]] = {}
        for group in self.param_groups:
            self._needs_norm |= group["clip_norm"] is not None
            for weight in group["params"]:
                if weight.grad is None and not self.state.get(weight):
                    self._waiting.append(weight)
                    continue
                _check_gradient(weight)
                choice = choose(self.program, weight, group["backend"])
                member = self._member(group, weight)
                specialised = None
                if choice.executor != "reference":
                    specialised = self.program.specialise(group)
                types = (tensor.dtype for tensor in member.state.values())
                key = (choice, id(specialised), weight.device, weight.dtype, *types)
                shared.setdefault(key, []).append(member)
                plans[key] = (choice.executor, specialised, choice.reason)
        buckets: list[Bucket] = []
        for key, members in shared.items():
            kind, specialised, reason = plans[key]
            if kind == "reference":
                bucket: Bucket = ReferenceBucket(self.program, members, f"reference: {reason}")
            else:
                description = f"{kind} kernel of {specialised.title}: {reason}"
                bucket = CompiledBucket(
                    self.program, specialised, members, executor(kind), description
                )
            for member, count in zip(members, bucket.steps, strict=True):
                self.state[member.weight]["step"] = count
            buckets.append(bucket)
        self._buckets = buckets
        self._seen_state, self._seen_states = self.state, len(self.state)
        self._seen_params = [list(group["params"]) for group in self.param_groups]

    def _member(self, group: Group, weight: Tensor) -> Member:
        """Return a weight with its state, making what state is missing."""
        held = self.state[weight]
        # torch's SGD counts no steps, but its buffer tells that there has been one.
        steps = held.get("step", 1 if any(value is not None for value in held.values()) else 0)
        names = {name: self.rule.state_names.get(name, name) for name in self.rule.states}
        names[AVERAGE] = AVERAGE
        state = {}
        for name in self.program.variables:
            if name not in needed_state(self.program, group):
                continue
            tensor = held.get(names[name])
            if tensor is None:
                tensor = self._initial(name, weight)
            elif tensor.shape != weight.shape:
                raise ShapeError(
                    f"the state {names[name]!r} does not fit its weight",
                    got=f"shape {tuple(tensor.shape)}",
                    expected=f"shape {tuple(weight.shape)}",
                    do="delete optimizer.state[weight] where a weight gets another shape",
                )
            elif (
                tensor.stride() != weight.stride()
                or tensor.device != weight.device
                or tensor.dtype in _HALF  # torch's own
            ):
                dtype = torch.float32 if tensor.dtype in _HALF else tensor.dtype
                tensor = torch.empty_like(weight, dtype=dtype, requires_grad=False).copy_(tensor)
            held[names[name]] = state[name] = tensor.detach()
        return Member(weight, group, state, float(steps))

    def _initial(self, name: str, weight: Tensor) -> Tensor:
        dtype = torch.float32 if weight.dtype in _HALF else weight.dtype
        if name == AVERAGE:
            return weight.detach().to(dtype, copy=True)
        value = self.rule.initial.get(name, 0.0)
        return torch.full_like(weight, value, dtype=dtype, requires_grad=False)

    # -- what a person asks -------------------------------------------------------------------

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights, as it is now."""
        weights = (w for group in self.param_groups for w in group["params"])
        return math.sqrt(squared_norm([w.grad for w in weights if w.grad is not None]))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in the place of the weights, until the block ends.

        Raises:
            ArgumentError: the optimizer was made without ``average``.
        """
        weights = [w for group in self.param_groups for w in group["params"]]
        if all(group["average"] is None for group in self.param_groups):
            raise ArgumentError(
                "no average of the weights is kept",
                where=type(self).__name__,
                do="make the optimizer with average=0.999",
            )
        pairs = [(w, self.state[w][AVERAGE]) for w in weights if AVERAGE in self.state.get(w, {})]
        kept = [w.detach().clone() for w, _ in pairs]
        with torch.no_grad():
            for weight, average in pairs:
                weight.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for (weight, _), old in zip(pairs, kept, strict=True):
                    weight.copy_(old)

    def explain(self) -> str:
        """Say how the weights are stepped, and why so.

        Before the first step this looks at the weights as if each had a gradient.
        """
        if self._buckets:
            lines = [
                f"{len(b.members)} tensors, {sum(m.weight.numel() for m in b.members)} weights, "
                f"{b.members[0].weight.dtype}: {b.description}"
                for b in self._buckets
            ]
            waiting = [w for w in self._waiting if w.requires_grad]
            if waiting:
                lines.append(f"{len(waiting)} tensors have had no gradient so far: not stepped")
            return "\n".join(lines)
        reasons: dict[str, list[int]] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                choice = choose(self.program, weight, group["backend"])
                text = f"{weight.dtype}: {choice.executor}: {choice.reason}"
                reasons.setdefault(text, []).append(weight.numel())
        return "\n".join(
            f"{len(sizes)} tensors, {sum(sizes)} weights, {text}" for text, sizes in reasons.items()
        )

    def expression(self) -> str:
        """Return the call that makes this optimizer, with the options that are not the default."""
        parts = []
        for name, default in self.options.items():
            value = self.defaults[name]
            if name == "lr" or value != default:
                parts.append(f"{name}={value!r}")
        parts.sort(key=lambda part: not part.startswith("lr="))
        return f"{type(self).__name__}({', '.join(parts)})"

    def __repr__(self) -> str:
        weights = [w for group in self.param_groups for w in group["params"]]
        held = [
            t
            for state in self.state.values()
            for name, t in state.items()
            if isinstance(t, Tensor) and name != "step"
        ]
        size = sum(t.numel() * t.element_size() for t in held)
        types = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in held}))
        groups = len(self.param_groups)
        facts = [
            f"{groups} group{'s' if groups != 1 else ''}",
            f"{_count(sum(w.numel() for w in weights))} weights",
            f"state {_count(size)}B {types}" if held else "no state yet",
        ]
        kinds = sorted({b.description.split(":")[0].split(" of ")[0] for b in self._buckets or []})
        return f"{self.expression()}  # {', '.join(facts + kinds)}"

    # -- saving and loading -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch does; a schedule is written as its expression."""
        state = super().state_dict()
        state["param_groups"] = [
            {**schedule_state.packed(group), _DECOUPLED: group.get("decay") == "decoupled"}
            for group in state["param_groups"]
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict`, or the torch optimizer of the same rule, has returned."""
        groups = [
            schedule_state.unpacked(saved, current, state_dict["state"])
            for saved, current in zip(state_dict["param_groups"], self.param_groups, strict=False)
        ]
        groups += state_dict["param_groups"][len(groups) :]
        groups = [
            {"decay": "decoupled" if group[_DECOUPLED] else "coupled", **group}
            if _DECOUPLED in group
            else group
            for group in groups
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})
        for group in self.param_groups:  # what another optimizer did not know of
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._restore_types(state_dict)
        self._buckets = None

    def _restore_types(self, state_dict: dict[str, Any]) -> None:
        """Undo torch's cast of the state to the type of the weight (its issue 146542)."""
        saved_ids = [k for group in state_dict["param_groups"] for k in group["params"]]
        weights = [w for group in self.param_groups for w in group["params"]]
        for key, weight in zip(saved_ids, weights, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                held = self.state[weight].get(name)
                if isinstance(value, Tensor) and held is not None and held.dtype != value.dtype:
                    self.state[weight][name] = value.detach().to(weight.device, copy=True)
            if "step" in self.state[weight]:
                self.state[weight]["step"] = float(self.state[weight]["step"])


_observed_step: Callable[..., Any] = torch.optim.Optimizer.profile_hook_step(Optimizer._step)


def _check_gradient(weight: Tensor) -> None:
    gradient = weight.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise ArgumentTypeError(
            "a gradient is sparse",
            where=f"a weight of shape {tuple(weight.shape)}",
            got=str(gradient.layout),
            expected="a dense gradient",
            do="make the embedding with sparse=False, or use torch.optim.SparseAdam",
        )


def _count(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
