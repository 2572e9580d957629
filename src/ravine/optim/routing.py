"""Which weights of a matrix optimizer its rule steps, and which AdamW, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ravine.errors import ArgumentError
from ravine.rules.matrix_rule import MatrixRule

FALLBACK_OPTIONS: dict[str, Any] = {
    "adamw_lr_ratio": 1.0,
    "adamw_betas": (0.9, 0.999),
    "adamw_eps": 1e-8,
    "adamw_weight_decay": None,
    "matrix": None,
}
"""What a matrix optimizer takes for the weights that AdamW steps."""

FALLBACK_BOUNDS: dict[str, Any] = {
    "adamw_lr_ratio": ("a number >= 0", lambda x: x >= 0),
    "adamw_betas": ("numbers in [0, 1)", lambda x: all(0 <= b < 1 for b in x)),
    "adamw_eps": ("a number >= 0", lambda x: x >= 0),
    "adamw_weight_decay": ("a number >= 0, or None", lambda x: x is None or x >= 0),
    "matrix": (
        "None (by shape), True (an error for other weights) or False (AdamW)",
        lambda x: x in (None, True, False),
    ),
}


class Routed(Mapping[str, Any]):
    """A group as AdamW sees it, always as the group is now: its own options by their plain names.

    Args:
        group: the group.
        params: those of its weights that AdamW steps.
        defaults: AdamW's options, for what the group has not.
    """

    def __init__(
        self, group: Mapping[str, Any], params: list[Tensor], defaults: Mapping[str, Any]
    ) -> None:
        self.group = group
        self.params = params
        self.defaults = defaults
        self._names = dict.fromkeys((*group, *defaults))

    def __getitem__(self, name: str) -> Any:
        group = self.group
        if name == "params":
            return self.params
        if name == "lr":
            return float(group["lr"]) * group["adamw_lr_ratio"]
        if name in ("betas", "eps"):
            return group[f"adamw_{name}"]
        if name == "weight_decay" and group["adamw_weight_decay"] is not None:
            return group["adamw_weight_decay"]
        return group[name] if name in group else self.defaults[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def copy(self) -> dict[str, Any]:
        """Return the present values."""
        return {name: self[name] for name in self._names}


def obstacle(rule: MatrixRule, group: Mapping[str, Any], weight: Tensor) -> str:
    """Say in words why the rule does not step a weight, or "" where it does.

    Raises:
        ArgumentError: nothing else may step it.
    """
    if weight.is_complex():
        found = "complex numbers"
    elif rule.fallback is not None and weight.numel() == 0:
        found = "no elements"
    else:
        found = rule.refuses(tuple(weight.shape))
    forced = rule.fallback is None or group["matrix"] is True
    if found and forced:
        others = "" if rule.fallback is None else ", or leave matrix=None: AdamW steps it then"
        raise ArgumentError(
            f"{rule.name} cannot step a weight",
            got=f"shape {tuple(weight.shape)}, {weight.dtype}: {found}",
            expected="a weight that it can",
            do=f"give the weight to another optimizer{others}",
        )
    if not forced and group["matrix"] is False:
        return "matrix=False"
    return found
