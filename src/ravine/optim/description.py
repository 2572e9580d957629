"""An optimizer in words: how its weights are stepped, what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine.choice import choose
from ravine.engine.program import Program
from ravine.optim.buckets import Bucket
from ravine.optim.nonfinite import skipped_steps
from ravine.optim.plan import Plan
from ravine.optim.sharding import local
from ravine.rules import Rule


def explain(optimizer: torch.optim.Optimizer, program: Program, plan: Plan | None) -> str:
    """Say which executor steps which weights, and why."""
    at_once = any(group["in_backward"] for group in optimizer.param_groups)
    if plan is not None and plan.buckets:
        lines = [
            f"{len(b.members)} tensors, {sum(m.weight.numel() for m in b.members)} weights, "
            f"{b.members[0].weight.dtype}: {b.description}{_share(b)}"
            for b in plan.buckets
        ]
        waiting = [w for w in plan.waiting if w.requires_grad]
        if waiting:
            lines.append(f"{len(waiting)} tensors have had no gradient so far: not stepped")
        lines += _left_out(optimizer)
        return "\n".join(lines)
    reasons: dict[str, list[int]] = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            choice = choose(program, local(weight), group["backend"])
            text = f"{weight.dtype}: {choice.executor}: {choice.reason}"
            reasons.setdefault(text, []).append(weight.numel())
    lines = ["stepped in backward, each weight when its gradient is there"] * at_once
    return "\n".join(
        lines
        + [f"{len(sizes)} tensors, {sum(sizes)} weights, {text}" for text, sizes in reasons.items()]
    )


def expression(optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> str:
    """Return the call that makes an optimizer, with the options that are not the default."""
    parts = []
    for name, default in options.items():
        value = optimizer.defaults[name]
        if name == "lr" or value != default:
            parts.append(f"{name}={value!r}")
    parts.sort(key=lambda part: not part.startswith("lr="))
    return f"{type(optimizer).__name__}({', '.join(parts)})"


def facts(optimizer: torch.optim.Optimizer, plan: Plan | None) -> str:
    """Say how many groups and weights there are, and what the state takes."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    rule: Rule = optimizer.rule  # type: ignore[attr-defined]
    numbers = {"step", *(rule.state_names.get(name, name) for name in rule.numbers)}
    held = [
        t
        for state in optimizer.state.values()
        for name, t in state.items()
        if isinstance(t, Tensor) and name not in numbers
    ]
    size = sum(local(t).numel() * t.element_size() for t in held)  # in this process
    types = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in held}))
    groups = len(optimizer.param_groups)
    known = [
        f"{groups} group{'s' if groups != 1 else ''}",
        f"{_count(sum(w.numel() for w in weights))} weights",
        f"state {_count(size)}B {types}" if held else "no state yet",
    ]
    buckets = [] if plan is None else plan.buckets
    kinds = sorted({b.description.split(":")[0].split(" of ")[0] for b in buckets})
    return ", ".join(known + kinds + _left_out(optimizer))


def _share(bucket: Bucket) -> str:
    """Say how much of sharded weights is here."""
    if not bucket.ranks:
        return ""
    here = sum(local(member.weight).numel() for member in bucket.members)
    return f"; sharded, {here} weights in this process"


def _left_out(optimizer: torch.optim.Optimizer) -> list[str]:
    steps = skipped_steps(optimizer.param_groups)
    return [f"{steps} step{'s' if steps != 1 else ''} left out (gradient not finite)"] * bool(steps)


def _count(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
