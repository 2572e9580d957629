"""One line around a loop of anyone's: hooks that measure at some of the steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.watch.finding import Finding
from ravine.watch.judge import Judge
from ravine.watch.seen import Seen, Units, norm_of, saturation

_RELUS = (nn.ReLU, nn.ReLU6, nn.Threshold)
_BOUNDED = (nn.Sigmoid, nn.Tanh)

HISTORY = 1000
"""How many watched steps are kept; every second one is dropped when there are more."""


class FindingWarning(UserWarning):
    """A watch found something; the message begins with the finding's code."""


class Watch:
    """Measures a training loop as it runs: gradients, updates, units; says what it found.

    Neither model nor loss is wrapped: hooks look at every ``every``-th step of the optimizers, and
    leave everything as it was when the block ends.

    Args:
        model: what is trained.
        optimizer: what trains it, or several.
        every: steps between two looks, >= 1. At 16, the default, watching costs less than 5 % of
            the steps of a small network.
        warn: issue each finding of severity "warning" and "critical" as a `FindingWarning`, once
            for each place.

    Attributes:
        findings: what was found so far, in order.
        history: what was measured, as `Seen`.

    Raises:
        ArgumentTypeError: model or optimizer is of another type.
        ArgumentError: ``every`` is not >= 1.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Watch(model, optimizer, every=1) as w:
        ...     for _ in range(5):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(4, 2)).mean().backward()
        ...         optimizer.step()
        >>> w.findings, len(w.history)
        ([], 5)

    Differs from Cockpit, which extends the model and replaces the loss, and takes 1.3 to 7.2 times
    as long at every 16th step (its own figures).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        every: int = 16,
        warn: bool = True,
    ) -> None:
        optimizers = (
            [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        )
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(
                "watch: the model is not a torch module", got=type(model).__name__
            )
        for one in optimizers:
            if not isinstance(one, torch.optim.Optimizer):
                raise ArgumentTypeError(
                    "watch: this is not an optimizer",
                    got=type(one).__name__,
                    expected="a torch.optim.Optimizer, or several",
                )
        if not optimizers:
            raise ArgumentTypeError("watch: there is no optimizer", expected="one, or several")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ArgumentError("watch: every", got=repr(every), expected="an int >= 1")
        self.findings: list[Finding] = []
        self.history: list[Seen] = []
        self._model, self._optimizers = model, optimizers
        self._every, self._warn = every, warn
        self._judge = Judge()
        self._step = 0
        self._said: set[tuple[str, str]] = set()
        self._handles: list[Any] = []
        self._units: dict[str, Units] = {}
        self._saturated: dict[str, float] = {}
        self._rows = 0
        self._before: list[Tensor] = []
        self._arrived: Tensor | None = None
        self._last: Tensor | None = None
        self._uncleared: bool | None = None
        self._names = {id(p): name for name, p in model.named_parameters()}

    @property
    def active(self) -> bool:
        """Whether the step that comes next is looked at; the first ones always are."""
        return self._step < 3 or self._step % self._every == 0

    def __enter__(self) -> Watch:
        self._missing()
        for name, module in self._model.named_modules():
            if isinstance(module, (*_RELUS, *_BOUNDED)):
                self._handles.append(module.register_forward_hook(self._looker(name)))
        probe = self._probe()
        if probe is not None:
            self._handles.append(probe.register_hook(self._arrives))  # type: ignore[no-untyped-call]
        first, last = self._optimizers[0], self._optimizers[-1]
        self._handles.append(first.register_step_pre_hook(self._begins))
        self._handles.append(last.register_step_post_hook(self._ended))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._before.clear()

    def _weights(self) -> list[nn.Parameter]:
        return [p for o in self._optimizers for g in o.param_groups for p in g["params"]]

    def _probe(self) -> nn.Parameter | None:
        """Return the smallest weight: what arrives at it tells whether gradients are cleared."""
        known = [p for p in self._weights() if p.requires_grad and id(p) in self._names]
        return min(known, key=lambda p: p.numel(), default=None)

    def _arrives(self, gradient: Tensor) -> None:
        if self.active:
            here = gradient.detach()
            self._arrived = here.clone() if self._arrived is None else self._arrived + here

    def _looker(self, name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not (self.active and module.training and isinstance(output, Tensor)):
                return
            if torch.compiler.is_compiling() or output.ndim < 2:
                return
            if isinstance(module, _BOUNDED):
                self._saturated[name] = saturation(inputs[0])
            else:
                units = self._units.setdefault(name, Units())
                units.add(output)
                self._rows = max(self._rows, units.rows)

        return look

    def _begins(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.active:
            return
        self._before = [p.detach().clone() for p in self._weights()]
        self._uncleared = self._kept_the_last()
        self._arrived = None

    def _kept_the_last(self) -> bool | None:
        """Whether the gradient is what arrived plus that of the last step, and not for clipping."""
        probe, last = self._probe(), self._last
        if probe is None or probe.grad is None or self._arrived is None or last is None:
            return None
        more = probe.grad.detach() - self._arrived
        return bool(last.any()) and bool((more - last).norm() < 1e-3 * last.norm())

    @torch.no_grad()
    def _ended(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        active, step = self.active, self._step + 1
        weights = self._weights()
        if active and len(self._before) == len(weights):
            grads = [p.grad for p in weights if p.grad is not None and not p.grad.is_sparse]
            gradient = norm_of(grads)
            changes = torch._foreach_sub([p.detach() for p in weights], self._before)
            size, moved = norm_of(self._before), norm_of(list(changes))
            seen = Seen(
                step=step,
                gradient_norm=gradient,
                bad=self._bad(weights) if not math.isfinite(gradient) else (),
                update_ratio=moved / size if size else math.nan,
                moved=moved != 0,
                uncleared=self._uncleared,
                dead={name: units.dead for name, units in self._units.items()},
                saturated=dict(self._saturated),
            )
            self._keep(seen)
            if not self._resting():
                for finding in self._judge.judge(seen, self._rows):
                    self._say(finding)
        self._before = []
        self._saturated.clear()
        self._step = step
        probe = self._probe() if self.active else None
        kept = None if probe is None else probe.grad
        self._last = None if kept is None else kept.detach().clone()

    def _resting(self) -> bool:
        """Whether every learning rate is 0: then nothing has to move."""
        return all(float(g.get("lr", 1)) == 0 for o in self._optimizers for g in o.param_groups)

    def _bad(self, weights: list[nn.Parameter]) -> tuple[str, ...]:
        return tuple(
            self._names.get(id(p), "a weight outside of the model")
            for p in weights
            if p.grad is not None and not bool(torch.isfinite(p.grad).all())
        )

    def _missing(self) -> None:
        held = {id(p) for p in self._weights()}
        missing = [
            n for n, p in self._model.named_parameters() if p.requires_grad and id(p) not in held
        ]
        if missing:
            self._say(
                Finding(
                    "optimizer-misses-parameters",
                    "warning",
                    "high",
                    f"{len(missing)} trainable weights are not held by the optimizer: "
                    + ", ".join(missing[:3]),
                    where=missing[0],
                )
            )

    def _say(self, finding: Finding) -> None:
        if (finding.name, finding.where) in self._said:
            return
        self._said.add((finding.name, finding.where))
        self.findings.append(finding)
        if self._warn and finding.severity != "info":
            text = f"{finding.code} {finding.name}: {finding.says} (ravine explain {finding.code})"
            warnings.warn(FindingWarning(text), stacklevel=4)

    def _keep(self, seen: Seen) -> None:
        self.history.append(seen)
        if len(self.history) > HISTORY:
            del self.history[1::2]
