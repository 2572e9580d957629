"""What a rule is compared with: a torch optimizer, or a formula written out.

An oracle takes weights and returns the function that makes one step with their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rule_papers import wide_numbers
from torch import Tensor

Weights = Sequence[Tensor]
Oracle = Callable[[Weights], Callable[[], None]]


@dataclass(frozen=True)
class Row:
    """A rule with options, and what must give the same numbers."""

    rule: str
    options: dict[str, Any]
    oracle: Oracle
    torch_class: type[torch.optim.Optimizer] | None = None
    torch_options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "-".join(f"{k}={v}" for k, v in self.options.items() if k != "lr")
        return f"{self.rule}-{shown or 'plain'}".replace(" ", "")


def same(
    rule: str, *, oracle: str = "", theirs: dict[str, Any] | None = None, **options: Any
) -> Row:
    """Return a row whose oracle is the torch optimizer of the same name and options."""
    torch_class = getattr(torch.optim, oracle or rule)
    torch_options = options if theirs is None else theirs
    made = wide_numbers(by_torch(torch_class, **torch_options))
    return Row(rule, options, made, torch_class, torch_options)


def paper(rule: str, update: Callable[..., Tensor], **options: Any) -> Row:
    """Return a row whose oracle is a formula with the same options."""
    return Row(rule, options, formula(update, **options))


def by_torch(
    torch_class: type[torch.optim.Optimizer],
    *,
    before: Callable[[Weights], None] | None = None,
    after: Callable[[Weights], None] | None = None,
    **options: Any,
) -> Oracle:
    """Return the oracle of a torch optimizer; ``before`` may change gradients, ``after`` weights."""

    def make(weights: Weights) -> Callable[[], None]:
        optimizer = torch_class(weights, **options)

        @torch.no_grad()
        def step() -> None:
            if before is not None:
                before(weights)
            optimizer.step()
            if after is not None:
                after(weights)

        return step

    return make


def formula(update: Callable[..., Tensor], **numbers: Any) -> Oracle:
    """Return the oracle of ``update(w, g, state, t) -> w``, called weight by weight."""

    def make(weights: Weights) -> Callable[[], None]:
        states: list[dict[str, Any]] = [{} for _ in weights]
        steps = [0] * len(weights)

        @torch.no_grad()
        def step() -> None:
            for k, w in enumerate(weights):
                if w.grad is not None:
                    steps[k] += 1
                    w.copy_(update(w.clone(), w.grad, states[k], steps[k], **numbers))

        return step

    return make
