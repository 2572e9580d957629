"""One line around a loop of anyone's: hooks that measure at some of the steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.watch.finding import Finding, FindingWarning, text_of
from ravine.watch.judge import Judge
from ravine.watch.layers import Layers, beginning
from ravine.watch.seen import Seen, read
from ravine.watch.weights import Weights, is_divided, local

EVERY = 32
"""Steps between two looks. One costs more than a step of a small model: digits 689 us and 507."""

HISTORY = 1000
"""How many watched steps are kept; every second one is dropped when there are more."""


class Watch:
    """Measures a training loop as it runs: gradients, updates, units; says what it found.

    Neither model nor loss is wrapped: hooks look at every ``every``-th step of the optimizers, and
    leave everything as it was when the block ends.

    Args:
        model: what is trained.
        optimizer: what trains it, or several.
        every: steps between two looks, >= 1. At 32, the default, watching costs less than 5 % of
            the time of a small network (benchmarks/watch.py).
        warn: issue each finding of severity "warning" and "critical" as a `FindingWarning`, once
            for each place.

    Attributes:
        findings: what was found so far, in order.
        history: what was measured, as `Seen`.
        looking: whether the step under way is looked at.

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
        every: int = EVERY,
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
        self._next: list[Any] = []
        self._layers = Layers(model)
        self._weights = Weights()
        self.looking = False
        self._last: Tensor | None = None
        self._probed: nn.Parameter | None = None
        self._uncleared: bool | None = None
        self._names = {id(p): name for name, p in model.named_parameters()}

    @property
    def due(self) -> bool:
        """Whether the step that comes next is looked at; the first three always are."""
        return self._step < 3 or self._step % self._every == 0

    def __enter__(self) -> Watch:
        self.begin()
        self._handles.append(self._optimizers[-1].register_step_post_hook(self._stepped))
        self._look_at_next()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in [*self._handles, *self._next]:
            handle.remove()
        self._handles.clear()
        self._next.clear()
        self.look_away()

    def observe(self, loss: float | Tensor) -> None:
        """Tell the loss of the batch that the last step was made for, so that it is judged as well.

        Without it a learning rate that is too high is seen only by what else it breaks. Of steps
        that are not looked at the loss is not read.

        Args:
            loss: one number, before the step; of one below 0 nothing follows.
        """
        if self.history and self.history[-1].step == self._step:
            value = float(loss.detach() if isinstance(loss, Tensor) else loss)
            self._tell(self._judge.judge_loss(self.history[-1], value))

    # -- for loops that call these themselves, instead of `with` -------------------------------

    def begin(self, step: int = 0, known: Sequence[Finding] = ()) -> None:
        """Look whether the optimizers hold all weights.

        Args:
            step: how many steps were made before.
            known: what was found before, and is not said again.
        """
        self.look_away()
        self._step = step
        for finding in known:
            self._said.add((finding.name, finding.where))
            self.findings.append(finding)
        self._missing()

    def look(self) -> None:
        """Look at the layers from here to the end of the step."""
        self._probed = probe = self._probe()
        kept = None if probe is None else probe.grad
        self._last = None if kept is None else beginning(kept).clone()
        self._layers.attach(probe)
        self.looking = True

    def look_away(self) -> None:
        """Leave model and optimizers alone until `look`."""
        self._layers.detach()
        self._weights.forget()
        self._last, self._probed, self.looking = None, None, False

    def leave_layers(self) -> None:
        """Let the layers go: their batch has been through them."""
        self._layers.detach()

    def before_update(self) -> None:
        """Look at the gradients that the optimizers are about to use."""
        if self.looking:
            self._weights.begin(self._held())
            self._uncleared = self._kept_the_last()

    def after_update(self, scale: float = 1.0, *, left_out: bool = False) -> None:
        """Count the step, and judge it if it was looked at.

        Args:
            scale: what the gradients are multiplied by.
            left_out: a scaler left the step out, as it does to find its scale.
        """
        self._step += 1
        if not self.looking:
            return
        held = self._held()
        change = None if left_out else self._weights.end(held, scale)
        if change is not None:
            finite = math.isfinite(change.gradient_norm)
            seen = Seen(
                step=self._step,
                gradient_norm=change.gradient_norm,
                bad=() if finite else self._bad(held),
                update_ratio=change.moved / change.size if change.size else math.nan,
                moved=change.moved != 0,
                uncleared=self._uncleared,
                dead=self._layers.dead(),
                saturated=self._layers.saturated(),
                promised=change.promised,
            )
            self._keep(seen)
            if not self._resting():
                self._tell(self._judge.judge(seen, self._layers.rows))
        self.look_away()

    def ended(self, loss: float) -> None:
        """Hear that there is a loss with which no step can be made, and the loop ends."""
        self.look_away()
        if self.history:
            self._tell(self._judge.judge_end(self.history[-1], loss))

    def _look_at_next(self) -> None:
        """Look at the step that comes next, if it is due: at others only the counting costs."""
        if self.due:
            self._next.append(self._optimizers[0].register_step_pre_hook(self._steps))
            self.look()

    def _steps(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.before_update()

    def _stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        scale, left_out = 1.0, False
        if self.looking:
            # A scaler hands both to optimizers that take the scale out, or leave the step out.
            left_out = bool(getattr(optimizer, "found_inf", None) or False)
            scale = float(getattr(optimizer, "grad_scale", None) or 1.0)
            self._next.pop().remove()
        self.after_update(scale, left_out=left_out)
        self._look_at_next()

    def _held(self) -> list[nn.Parameter]:
        return [p for o in self._optimizers for g in o.param_groups for p in g["params"]]

    def _probe(self) -> nn.Parameter | None:
        """Return the smallest weight: what arrives at it tells whether gradients are cleared."""
        # What is divided over processes could only be looked at by all of them together.
        held = [p for p in self._held() if p.requires_grad and not is_divided(p)]
        known = [p for p in held if id(p) in self._names]
        return min(known, key=lambda p: p.numel(), default=None)

    def _kept_the_last(self) -> bool | None:
        """Whether the gradient is what arrived plus that of the last step, and not for clipping."""
        probe, last, arrived = self._probed, self._last, self._layers.arrived
        if probe is None or probe.grad is None or arrived is None or last is None:
            return None
        now, came, before = read([beginning(probe.grad), arrived, last])
        more = [n - c for n, c in zip(now, came, strict=True)]
        return any(before) and math.dist(more, before) < 1e-3 * math.hypot(*before)

    def _resting(self) -> bool:
        """Whether every learning rate is 0: then nothing has to move."""
        return all(float(g.get("lr", 1)) == 0 for o in self._optimizers for g in o.param_groups)

    def _bad(self, held: list[nn.Parameter]) -> tuple[str, ...]:
        return tuple(
            self._names.get(id(p), "a weight outside of the model")
            for p in held
            if p.grad is not None and not bool(torch.isfinite(local(p.grad)).all())
        )

    def _missing(self) -> None:
        held = {id(p) for p in self._held()}
        missing = [
            n for n, p in self._model.named_parameters() if p.requires_grad and id(p) not in held
        ]
        if missing:
            finding = Finding(
                "optimizer-misses-parameters",
                "warning",
                "high",
                f"{len(missing)} trainable weights are not held by the optimizer: "
                + ", ".join(missing[:3]),
                where=missing[0],
            )
            self._tell(iter([finding]))

    def _tell(self, found: Iterator[Finding]) -> None:
        for finding in found:
            if (finding.name, finding.where) in self._said:
                continue
            self._said.add((finding.name, finding.where))
            self.findings.append(finding)
            if self._warn and finding.severity != "info":
                warnings.warn(FindingWarning(text_of(finding)), stacklevel=4)

    def _keep(self, seen: Seen) -> None:
        self.history.append(seen)
        if len(self.history) > HISTORY:
            del self.history[1:-1:2]
