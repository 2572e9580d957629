"""A saved state is read as a whole, checked weight by weight, and only then put in place.

Weights are matched by name where both sides have names, else by position, as torch does. What does
not fit is told by group and weight; the optimizer is then as it was.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError
from ravine.optim import lean_state, saved_state
from ravine.optim.buckets import Group, needed_state
from ravine.optim.options import AVERAGE
from ravine.rules import RULES, Rule

_HALF = (torch.bfloat16, torch.float16)
_KNOWN = {name for rule in RULES.values() for name in rule.equation.hyperparameters}
"""Every hyperparameter of a built-in rule."""

_STATES = {name for rule in RULES.values() for name in (*rule.state_names.values(), *rule.numbers)}
"""What the built-in elementwise rules keep, by the names in a saved state."""

Loaded = tuple[defaultdict[Tensor, Any], list[Group]]


def read(optimizer: Any, state_dict: Mapping[str, Any], keep: Collection[str]) -> Loaded:
    """Return the state and the groups that a saved state makes; the optimizer is not changed."""
    owner = type(optimizer).__name__
    if not (isinstance(state_dict, Mapping) and {"state", "param_groups"} <= state_dict.keys()):
        raise ArgumentTypeError(
            "this is not the state of an optimizer",
            where=f"{owner}.load_state_dict",
            got=_shown(state_dict) if isinstance(state_dict, Mapping) else repr(type(state_dict)),
            expected="a dictionary with 'state' and 'param_groups', as state_dict() returns it",
        )
    unknown = [name for name in keep if name not in optimizer.options]
    if unknown:
        raise ArgumentError(
            f"{owner} has no option {unknown[0]!r} to keep",
            where=f"{owner}.load_state_dict, keep",
            expected="some of " + _shown(optimizer.options),
        )
    saved_groups, groups = state_dict["param_groups"], optimizer.param_groups
    if len(saved_groups) != len(groups):
        raise ArgumentError(
            "loaded state dict has a different number of parameter groups",
            where=f"{owner}.load_state_dict",
            got=_sizes(saved_groups),
            expected=_sizes(groups),
        )
    loaded = []
    state: defaultdict[Tensor, Any] = defaultdict(dict)
    taken = set()
    for number, (saved, current) in enumerate(zip(saved_groups, groups, strict=True)):
        where = f"{owner}, group {number}"
        _check_algorithm(optimizer, saved, where)
        group = saved_state.unpacked(saved, current, state_dict["state"])
        before = {**optimizer.defaults, **{n: current[n] for n in optimizer.rule.shared}}
        group = {**before, **copy.deepcopy(_plain(group)), **_schedule(group)}
        group = saved_state.with_kept(group, current, (*keep, "state_dtype"))
        group["params"] = current["params"]
        names = current.get("param_names", saved.get("param_names"))
        if names is not None:
            group["param_names"] = list(names)
        for key, position, weight in _matched(saved, current, where):
            taken.add(key)
            if key in state_dict["state"]:
                name = f" {names[position]!r}" if names is not None else ""
                place = f"{where}, weight {position}{name}"
                state[weight] = _fitted(optimizer, group, weight, state_dict["state"][key], place)
        loaded.append(group)
    for key, value in state_dict["state"].items():
        if key not in taken:
            state[key] = value  # not of a weight: as it is, as torch does
    return state, loaded


def _plain(group: Group) -> Group:
    return {name: value for name, value in group.items() if name not in ("params", "schedule")}


def _schedule(group: Group) -> Group:
    return {"schedule": group["schedule"]} if group.get("schedule") is not None else {}


def _matched(saved: Group, current: Group, where: str) -> Iterator[tuple[Any, int, Tensor]]:
    """Give the saved key of each weight, with the weight's position."""
    keys, weights = saved["params"], current["params"]
    theirs, ours = saved.get("param_names"), current.get("param_names")
    if theirs is None or ours is None:
        if len(keys) != len(weights):
            raise ArgumentError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group",
                where=where,
                got=f"{len(keys)} weights" + _named(theirs),
                expected=f"{len(weights)} weights" + _named(ours),
            )
        found = list(keys)
    else:
        missing = [name for name in ours if name not in theirs]
        unexpected = [name for name in theirs if name not in ours]
        if missing or unexpected:
            raise ArgumentError(
                "the saved weights are not those of the optimizer, by name",
                where=where,
                got="; ".join(
                    f"{word} {_shown(names)}"
                    for word, names in (("missing", missing), ("unexpected", unexpected))
                    if names
                ),
                expected=f"{len(ours)} weights" + _named(ours),
                do="rename them in param_names, or leave names out to match by position",
            )
        by_name = dict(zip(theirs, keys, strict=True))
        found = [by_name[name] for name in ours]
    yield from ((key, k, w) for k, (key, w) in enumerate(zip(found, weights, strict=True)))


def _check_algorithm(optimizer: Any, saved: Group, where: str) -> None:
    """Refuse a group that lacks hyperparameters of our rule and has those of another."""
    rule: Rule = optimizer.rule
    ours = [name for name in rule.equation.hyperparameters if name in optimizer.options]
    missing = [name for name in ours if name not in saved]
    foreign = [name for name in saved if name in _KNOWN - optimizer.options.keys()]
    if missing and foreign:
        raise ArgumentError(
            "the state is of another algorithm",
            where=where,
            got=f"a group with {_shown(foreign)}",
            expected=f"a group with {_shown(missing)}, as {rule.name} has",
        )


def _fitted(
    optimizer: Any, group: Group, weight: Tensor, saved: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Return the state of a weight, checked, on its device and in the type it is kept in."""
    rule: Rule = optimizer.rule
    names = {state: rule.state_names.get(state, state) for state in rule.states}
    held = {name: value for name, value in saved.items() if value is not None}
    touched = needed_state(optimizer.program, group)
    needed = [name for state, name in names.items() if state in touched]
    needed += [rule.state_names.get(name, name) for name in rule.numbers]
    missing = [name for name in needed if lean_state.missing(held, name)]
    if missing and held:
        raise ArgumentError(
            f"the state lacks {_shown(missing)}, which {rule.name} keeps with these options",
            where=place,
            got=f"a state of {_shown(held)}",
            expected=f"a state of {_shown(needed)}",
            do="load what an optimizer of the same algorithm has saved",
        )
    if type(rule) is Rule:  # not of a matrix rule, which leaves weights to AdamW
        _check_names(rule, names.values(), saved, place)
    coded = {lean_state.names(name)[0] for name in optimizer.moments}
    checked = {*names.values(), *(lean_state.names(name)[0] for name in names.values()), AVERAGE}
    fitted = {}
    for name, value in saved.items():
        if not isinstance(value, Tensor):
            # torch makes one of the names of the present state where it unflattens.
            if name in coded:
                raise ArgumentError(
                    f"the state has no {name}",
                    where=place,
                    got="a flat state, in which codes of a sharded weight are saved in full",
                    do="save and load with flatten_optimizer_state_dict=False",
                )
            fitted[name] = value
        elif name == "step":
            fitted[name] = float(value)
        else:
            dtype = value.dtype
            if name in checked:
                _check_tensor(name, value, weight, place)
                dtype = _kept_type(value, weight)
            # Numbers stay on the host; all else goes where its weight is.
            device = weight.device if value.dim() or not weight.dim() else value.device
            # A copy: torch shares it, and two optimizers then step one state.
            fitted[name] = value.detach().to(device, dtype, copy=True)
    return fitted


def _check_names(rule: Rule, names: Collection[str], saved: Mapping[str, Any], place: str) -> None:
    """Refuse state that only another built-in rule keeps: torch does not save what made it."""
    numbers = [rule.state_names.get(name, name) for name in rule.numbers]
    plain = (name.removesuffix("_codes").removesuffix("_scales") for name in saved)
    foreign = [name for name in plain if name in _STATES.difference(names, numbers)]
    if foreign:
        raise ArgumentError(
            "the state is of another algorithm",
            where=place,
            got=f"a state with {_shown(foreign)}",
            expected=f"a state of {_shown([*names, *numbers])}, as {rule.name} keeps",
        )


def _check_tensor(name: str, value: Tensor, weight: Tensor, place: str) -> None:
    if value.shape != weight.shape:
        raise ShapeError(
            f"the state {name!r} does not fit its weight",
            where=place,
            got=f"shape {tuple(value.shape)}",
            expected=f"shape {tuple(weight.shape)}",
        )
    if value.is_complex() != weight.is_complex():
        raise ArgumentTypeError(
            f"the state {name!r} does not fit its weight",
            where=place,
            got=str(value.dtype),
            expected=f"a type for a weight of {weight.dtype}",
        )


def _kept_type(value: Tensor, weight: Tensor) -> torch.dtype:
    """Return the type that a saved state goes on in.

    torch casts to the weight's type, which loses float32 state of bfloat16 weights (its issue
    146542). Here float32 stays float32 then, and what is smaller stays as it is.
    """
    full = torch.float32 if weight.dtype in _HALF else weight.dtype
    wide = value.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)
    return full if wide and value.is_complex() == full.is_complex else value.dtype


def _sizes(groups: Any) -> str:
    counts = ", ".join(str(len(group["params"])) for group in groups)
    return f"{len(groups)} group{'s' if len(groups) != 1 else ''}, of {counts} weights"


def _named(names: Any) -> str:
    return "" if names is None else f": {_shown(names)}"


def _shown(names: Any, most: int = 12) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"
