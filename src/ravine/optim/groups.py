"""What a new group of weights has besides the weights: every option, checked, and its schedule."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from ravine.errors import ArgumentError, unknown_option
from ravine.optim import capturable, lean_state
from ravine.optim.bounds import check_bounds
from ravine.optim.buckets import Group
from ravine.optim.nonfinite import SKIPPED
from ravine.optim.options import OPTIONS
from ravine.optim.torch_ways import TORCH_WAYS, translated
from ravine.schedules import Schedule, as_schedule


def completed(optimizer: Any, group: Group) -> Group:
    """Return a group with the optimizer's value of every option that it does not name.

    Raises:
        UnknownOptionError: a name that is nearly that of an option.
        ArgumentError: a value out of its bounds, or values that do not fit each other.
    """
    where = f"{type(optimizer).__name__}, group {len(optimizer.param_groups)}"
    for option in group:
        # A group may carry notes of its owner's; only a near miss is taken for an error.
        known = option in (*optimizer.options, *TORCH_WAYS, "params", "param_names")
        close = get_close_matches(option, optimizer.options, n=1, cutoff=0.82)
        if not known and close and not option.startswith(("initial_", "max_", "swa_")):
            raise unknown_option(f"{where}:", option, optimizer.options)
    group = {**optimizer.defaults, **translated(group, where)}
    lr = group["lr"]
    if isinstance(lr, Schedule):
        group["schedule"] = as_schedule(lr)
        group["schedule_step"] = 0
        group["lr"] = group["schedule"](0)
    for name, start in optimizer.rule.shared.items():
        present = optimizer.param_groups[0] if optimizer.param_groups else group
        number: Any = present.get(name, group[start] if isinstance(start, str) else start)
        group[name] = float(number)
    check_bounds(
        {name: group[name] for name in optimizer.options},
        where=where,
        defaults=optimizer.options,
        free=optimizer.rule.equation.hyperparameters.keys() & OPTIONS,
        own=optimizer.rule.bounds,
    )
    lean_state.check(optimizer.rule, group, where)
    capturable.check(optimizer.rule, group, where)
    if optimizer.rule.check is not None:
        optimizer.rule.check(group)
    if optimizer.rule.evaluation is not None:
        _check_evaluated(group, where)
    if group["skip_nonfinite"]:
        group.setdefault(SKIPPED, 0)
    return group


def _check_evaluated(group: Group, where: str) -> None:
    """Refuse what changes the weights after the rule, whose average is then left behind."""
    for option, used in (
        ("cautious", group["cautious"]),
        ("l1_proximal", group["l1_proximal"] and group["l1"] != 0),
    ):
        if used:
            raise ArgumentError(
                f"{option} would leave the average of the weights behind",
                where=where,
                got=f"{option}=True",
                expected=f"{option}=False for a rule that is evaluated at an average",
                do="use l1 without l1_proximal, which acts through the gradient"
                if option == "l1_proximal"
                else "use another rule, or leave cautious out",
            )
