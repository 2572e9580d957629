"""Which weights decay and penalties act on, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ravine.errors import ArgumentError, ArgumentTypeError, nearest
from ravine.regularize.checks import not_negative

DECAYED, NOT_DECAYED, FROZEN = "decayed", "not decayed", "frozen"

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_NORM_NAME = re.compile(r"norm(?!al)|normali[sz]ation", re.IGNORECASE)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Placement:
    """One weight: its names in the model, the group it is in, and the reason in words."""

    names: tuple[str, ...]
    parameter: nn.Parameter
    group: str
    reason: str


def decay_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    l1: float | None = None,
    l2: float | None = None,
    exclude_embeddings: bool = False,
    skip: str | Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return parameter groups in which biases and norm parameters are not decayed or penalised.

    Left out of decay are, by the module that a parameter belongs to and by its name, never by its
    number of dimensions:

    * biases: a name that begins or ends with "bias",
    * parameters of batch, layer, group, instance and RMS norms, of classes whose name contains
      "norm" (but not "normal", unless "normalization"), and parameters with such a name,
    * slopes of ``PReLU``; embeddings if ``exclude_embeddings``; what ``skip`` names.

    Frozen weights (``requires_grad`` False) are in no group. A weight used in several places is
    left out of decay if any of its places is.

    Args:
        model: the module whose parameters are grouped.
        weight_decay, l1, l2: options of the decayed group (finite, >= 0), 0 in the other one. An
            option that is None is not named in the decayed group, which then has the optimizer's;
            with all None the other group has ``weight_decay`` 0.
        exclude_embeddings: leave out ``Embedding``, ``EmbeddingBag`` and parameters whose name
            contains "embed".
        skip: further parameters to leave out, by name, wildcards allowed: ``"head.*"``.

    Returns:
        One group of decayed parameters and one of the others, in the model's order, without those
        that are empty; for `ravine.optim` and `torch.optim` (which knows ``weight_decay`` only).

    Raises:
        ArgumentError: an option out of its bounds, an entry of ``skip`` that names nothing, or a
            model without trainable parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
        >>> groups = decay_groups(model, weight_decay=0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(2, 0.1), (4, 0.0)]

    Differs from: torch and optax leave this to the caller (optax by a mask); Keras has
    ``exclude_from_weight_decay(var_names=...)``. The common rule ``ndim <= 1`` misses embeddings
    and fails on flattened parameters.
    """
    given = {"weight_decay": weight_decay, "l1": l1, "l2": l2}
    options = {
        name: not_negative(f"decay_groups: {name}", value)
        for name, value in given.items()
        if value is not None
    }
    placements = place(model, exclude_embeddings=exclude_embeddings, skip=skip)
    if all(placement.group == FROZEN for placement in placements):
        raise ArgumentError(
            "the model has no parameters to train",
            where=f"decay_groups({type(model).__name__})",
            got=f"{len(placements)} parameters, all frozen" if placements else "no parameters",
        )
    groups = []
    for group, settings in (
        (DECAYED, options),
        (NOT_DECAYED, dict.fromkeys(options or ["weight_decay"], 0.0)),
    ):
        members = [placement.parameter for placement in placements if placement.group == group]
        if members:
            groups.append({"params": members, **settings})
    return groups


def describe_groups(
    model: nn.Module, *, exclude_embeddings: bool = False, skip: str | Iterable[str] = ()
) -> str:
    """Return a table of what `decay_groups` does with each parameter, and why.

    Args:
        model, exclude_embeddings, skip: as in `decay_groups`.

    Returns:
        A header, one line for each parameter (name, shape, group, reason) and a line of sums.

    Raises:
        ArgumentError: an entry of ``skip`` names nothing.

    Example:
        >>> print(describe_groups(nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8))))
        parameter  shape   group        reason
        0.weight   (8, 3)  decayed      weight of Linear
        0.bias     (8,)    not decayed  bias
        1.weight   (8,)    not decayed  LayerNorm is a norm
        1.bias     (8,)    not decayed  bias
        24 weights decayed, 24 not decayed, 0 frozen
    """
    placements = place(model, exclude_embeddings=exclude_embeddings, skip=skip)
    rows = [("parameter", "shape", "group", "reason")]
    sums = dict.fromkeys((DECAYED, NOT_DECAYED, FROZEN), 0)
    for placement in placements:
        shape = str(tuple(placement.parameter.shape))
        rows.append((" = ".join(placement.names), shape, placement.group, placement.reason))
        sums[placement.group] += placement.parameter.numel()
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    counts = ", ".join(f"{count} {group}" for group, count in sums.items())
    return "\n".join([*lines, counts.replace(" ", " weights ", 1)])


def place(
    model: nn.Module, *, exclude_embeddings: bool = False, skip: str | Iterable[str] = ()
) -> list[Placement]:
    """Return the group and the reason of each parameter of a model, in the model's order."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            "grouping needs the model: names and module types say what is decayed",
            got=f"{model!r} ({type(model).__name__})",
            expected="a torch.nn.Module",
            do="give the model, not model.parameters()",
        )
    patterns = [skip] if isinstance(skip, str) else list(skip)
    uses: dict[int, list[tuple[str, nn.Module]]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{path}.{name}" if path else name
                uses.setdefault(id(parameter), []).append((full, module))
                parameters[id(parameter)] = parameter
    _check_patterns(patterns, [name for found in uses.values() for name, _ in found])
    placements = []
    for key, found in uses.items():
        group, reason = _decide(found, parameters[key], patterns, exclude_embeddings)
        names = tuple(name for name, _ in found)
        placements.append(Placement(names, parameters[key], group, reason))
    return placements


def _decide(
    uses: Sequence[tuple[str, nn.Module]],
    parameter: nn.Parameter,
    patterns: Sequence[str],
    exclude_embeddings: bool,
) -> tuple[str, str]:
    if not parameter.requires_grad:
        return FROZEN, "requires_grad is False"
    for name, module in uses:
        reason = _exclusion(name, module, patterns, exclude_embeddings)
        if reason:
            return NOT_DECAYED, reason + (f" (as {name})" if len(uses) > 1 else "")
    return DECAYED, " and ".join(
        dict.fromkeys(f"weight of {type(module).__name__}" for _, module in uses)
    )


def _exclusion(
    name: str, module: nn.Module, patterns: Sequence[str], exclude_embeddings: bool
) -> str:
    """Return why a parameter in one of its places is not decayed, or an empty string."""
    for pattern in patterns:
        if fnmatchcase(name, pattern):
            return f"skip={pattern!r}"
    parts = name.split(".")
    # layer.parametrizations.bias.original belongs to layer.bias.
    at = parts.index("parametrizations") if "parametrizations" in parts[:-1] else -2
    local = parts[at + 1]
    kind = type(module).__name__
    if local.startswith("bias") or local.endswith("bias"):
        return "bias"
    if isinstance(module, _NORMS):
        return f"{kind} is a norm"
    if _NORM_NAME.search(kind):
        return f"the class name {kind} contains 'norm'"
    if _NORM_NAME.search(local):
        return f"the name {local} contains 'norm'"
    if isinstance(module, nn.PReLU):
        return "slope of PReLU"
    if exclude_embeddings:
        if isinstance(module, _EMBEDDINGS):
            return f"{kind} is an embedding"
        if "embed" in local.lower():
            return f"the name {local} contains 'embed'"
    return ""


def _check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ArgumentTypeError(
                "skip takes names of parameters", got=f"{pattern!r} ({type(pattern).__name__})"
            )
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ArgumentError(
                f"skip names no parameter: {pattern!r}",
                expected="a name of model.named_parameters(), wildcards allowed",
                do=nearest(pattern, names),
            )
