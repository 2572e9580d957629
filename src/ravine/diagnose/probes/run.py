"""The run as it is, watched: gradients by layer, weights on the way, the first number not finite.

Cost: the run itself, one norm of all gradients a step, and norms by layer at about forty steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import AS_IT_IS, Evidence
from ravine.diagnose.program import Fresh
from ravine.diagnose.replay import Trace, replay
from ravine.errors import RavineError, TaskError

LOOKS = 40
"""Steps whose gradients are looked at by layer."""

STATES = 4
"""Parts of the run after each of which the weights are kept."""


@dataclass(frozen=True)
class Gradients:
    """The norms of the gradients at a step, by layer: the module's own weights of two dimensions."""

    step: int
    norms: dict[str, float]

    @property
    def whole(self) -> float:
        """The norm over all layers."""
        return math.sqrt(sum(norm * norm for norm in self.norms.values()))


@dataclass
class Run:
    """A replay and what it left behind.

    Attributes:
        trace: as of any replay.
        fresh: the program that ran; see `at_end` for its weights.
        gradients: at some steps, the first one included.
        states: step and weights, from before the first step to near the end.
        bad_step: the first step whose loss or gradient was not finite, or None.
    """

    trace: Trace
    fresh: Fresh
    gradients: list[Gradients] = field(default_factory=list)
    states: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    bad_step: int | None = None


def layers_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the weights of two and more dimensions, by the module that owns them.

    >>> list(layers_of(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))))
    ['0', '2']
    """
    found = {}
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        if own:
            found[name] = own
    return found


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Return the norm of each layer's gradient; layers without one are left out."""
    return {
        name: math.sqrt(
            sum(float(p.grad.double().square().sum()) for p in own if p.grad is not None)
        )
        for name, own in layers_of(model).items()
        if any(p.grad is not None for p in own)
    }


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(evidence: Evidence) -> Run:
    """Replay the program as it is."""
    fresh = evidence.fresh()
    result = Run(Trace(), fresh)
    steps = fresh.steps
    looks = {1, 2, 3, 5, 8, *(round(k * steps / LOOKS) for k in range(1, LOOKS + 1))}
    states = {1, *(round(k * steps / STATES) for k in range(1, STATES))}

    def observe(fresh: Fresh, step: int, loss: Tensor) -> None:
        if step in states:
            result.states.append((step, state_of(fresh.model)))
        gradients = [p.grad for p in fresh.model.parameters() if p.grad is not None]
        if result.bad_step is None and not _finite([loss.detach(), *gradients]):
            result.bad_step = step
        if step in looks:
            result.gradients.append(Gradients(step, gradient_norms(fresh.model)))

    seen = 0

    def counted(fresh: Fresh, step: int, loss: Tensor) -> None:
        nonlocal seen
        seen = step
        observe(fresh, step, loss)

    try:
        result.trace = replay(fresh, counted, deadline=evidence.deadline)
    except RavineError:
        raise
    except Exception as error:
        raise TaskError(
            f"the program fails after step {seen}",
            where=f"task {fresh.task.name!r}, epoch {1 + seen // max(1, fresh.train.steps or 1)}",
            got=f"{type(error).__name__}: {error}",
            do="mend this first: what ends early cannot be compared with anything",
        ) from error
    result.states.append((len(result.trace.losses), state_of(fresh.model)))
    if result.bad_step is None:
        result.bad_step = result.trace.non_finite
    evidence.remember(AS_IT_IS, result.trace)
    return result


def at_end(evidence: Evidence) -> Fresh:
    """Return the program with the weights with which its run ended.

    Not the one that ran: a Task's own model begins anew in every replay.
    """
    state = evidence.probe(run).states[-1][1]
    fresh = evidence.fresh()
    fresh.model.load_state_dict(state)
    return fresh


def _finite(tensors: list[Tensor]) -> bool:
    # A norm may overflow where no element does: only then is every element looked at.
    norms = torch._foreach_norm([t if not t.is_sparse else t.coalesce().values() for t in tensors])
    if bool(torch.isfinite(torch.stack([n.double() for n in norms]).sum())):
        return True
    return all(bool(torch.isfinite(t).all()) for t in tensors)
