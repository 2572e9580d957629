"""What a step does to weights and gradients. Cost: two backward passes, a step, four losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Fresh
from ravine.tasks.seeding import seeded


@dataclass(frozen=True)
class Stepping:
    """One step, taken apart.

    Attributes:
        held: the names of the weights that the optimizer holds.
        outside: shapes of weights that take part and are none of the model's parameters.
        missing: names of trainable weights that it does not hold.
        frozen: names of weights that do not require a gradient.
        without_gradient: names of held weights that got no gradient, or one of zeros.
        moved: names of the weights that the step changed.
        cleared: whether zero_grad left no gradient behind.
        ratio: directional derivative of the loss along the gradient that the optimizer was given,
            divided by its squared norm: 1 for the true gradient, -1 for a flipped one, NaN where
            it is too small to tell.
        descends: whether the step goes against the gradient that it was given; None where it goes
            neither along it nor against it.
        update_ratio: norm(update) / norm(weight) of the first steps.
        lr: the largest learning rate of a group.
    """

    held: tuple[str, ...]
    outside: tuple[str, ...]
    missing: tuple[str, ...]
    frozen: tuple[str, ...]
    without_gradient: tuple[str, ...]
    moved: tuple[str, ...]
    cleared: bool
    ratio: float
    descends: bool | None
    update_ratio: float
    lr: float


def stepping(evidence: Evidence) -> Stepping:
    """Take a step of a fresh program and look at everything that it should change."""
    fresh = evidence.fresh()
    batch = next(iter(fresh.train.epoch(1)))
    names = {id(p): name for name, p in fresh.model.named_parameters()}
    held = {id(p) for group in fresh.optimizer.param_groups for p in group["params"]}
    weights = list(fresh.model.parameters())
    fresh.model.train()
    _backward(fresh, batch)
    empty = [p for p in weights if id(p) in held and not _nonzero(p)]
    ratio = _ratio(fresh, batch, weights)
    before = [p.detach().clone() for p in weights]
    _backward(fresh, batch)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in weights]
    fresh.optimizer.step()
    changes = [p.detach() - old for p, old in zip(weights, before, strict=True)]
    sizes = sum(float(c.double().square().sum()) for c in changes) ** 0.5
    norm = sum(float(old.double().square().sum()) for old in before) ** 0.5
    moved = [p for p, change in zip(weights, changes, strict=True) if bool((change != 0).any())]
    descends = _descends(gradients, changes)
    fresh.optimizer.zero_grad()
    return Stepping(
        held=tuple(names[i] for i in names if i in held),
        outside=_outside(fresh, batch, set(names) | held),
        missing=tuple(names[id(p)] for p in weights if p.requires_grad and id(p) not in held),
        frozen=tuple(names[id(p)] for p in weights if not p.requires_grad),
        without_gradient=tuple(names[id(p)] for p in empty),
        moved=tuple(names[id(p)] for p in moved),
        cleared=not any(_nonzero(p) for p in weights if p.requires_grad and id(p) in held),
        ratio=ratio,
        descends=descends,
        update_ratio=sizes / norm if norm else float("nan"),
        lr=max((float(group.get("lr", 0)) for group in fresh.optimizer.param_groups), default=0.0),
    )


def _backward(fresh: Fresh, batch: tuple[Tensor, Tensor]) -> float:
    for p in fresh.model.parameters():
        p.grad = None
    with seeded(fresh.seed):  # the same dropout every time
        loss: Any = fresh.loss(fresh.model(batch[0]), batch[1])
        loss.backward()
    return float(loss.detach())


def _outside(fresh: Fresh, batch: tuple[Tensor, Tensor], known: set[int]) -> tuple[str, ...]:
    """Return the leaves of the graph that nobody holds: layers in a plain list are such."""
    loss: Any = fresh.loss(fresh.model(batch[0]), batch[1])
    found, seen, todo = [], set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known and isinstance(leaf, nn.Parameter):
            found.append(f"of shape {tuple(leaf.shape)}")
    return tuple(found)


def _value(fresh: Fresh, batch: tuple[Tensor, Tensor]) -> float:
    with seeded(fresh.seed), torch.no_grad():
        return float(fresh.loss(fresh.model(batch[0]), batch[1]).double())


def _nonzero(p: nn.Parameter) -> bool:
    return p.grad is not None and bool((p.grad != 0).any())


def _ratio(fresh: Fresh, batch: tuple[Tensor, Tensor], weights: list[nn.Parameter]) -> float:
    """Compare the gradient with differences of the loss along it."""
    kept = [p.detach().clone() for p in weights]
    steps = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in weights]
    square = sum(float(g.double().square().sum()) for g in steps)
    scale = sum(float(w.double().square().sum()) for w in kept) ** 0.5
    if not square > 0 or not scale > 0:
        return float("nan")
    found = []
    for share in (1e-2, 1e-3):
        length = share * scale / square**0.5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, old, g in zip(weights, kept, steps, strict=True):
                    p.copy_(old + sign * length * g)
            values.append(_value(fresh, batch))
        found.append((values[0] - values[1]) / (2 * length * square))
    with torch.no_grad():
        for p, old in zip(weights, kept, strict=True):
            p.copy_(old)
    # Both lengths must agree, else the difference is rounding or curvature.
    return found[0] if abs(found[0] - found[1]) < 0.3 * abs(found[0]) else float("nan")


def _descends(gradients: list[Tensor], changes: list[Tensor]) -> bool | None:
    """Return whether a step has a part against the gradient; exact, whatever the curvature."""
    pairs = list(zip(gradients, changes, strict=True))
    along = sum(float((g.double() * c.double()).sum()) for g, c in pairs)
    sizes = [sum(float(t.double().square().sum()) for t in part) for part in (gradients, changes)]
    cosine = along / (sizes[0] * sizes[1]) ** 0.5 if sizes[0] > 0 and sizes[1] > 0 else 0.0
    return cosine < 0 if abs(cosine) > 1e-3 else None
