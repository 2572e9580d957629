"""From measurements to findings, without a replay: only what the measurements prove, or nearly so.

Everything that also happens in healthy runs is left to `ravine.diagnose`, whose replays can tell:
a learning rate that is a little high, small gradients, large inputs, a rising validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ravine.watch.finding import Finding
from ravine.watch.seen import Running, Seen

AGAIN = 3
"""How many watched steps in a row must show it, where one could be chance."""

SURE = 10
"""How many measurements a median needs."""

ARRIVED = 0.01
"""Of the longest gradient: below that, weights may stay where they are because they are there."""

EXPLODED = 1e3
"""Times its running median: a gradient this long, in several watched steps, is no rare batch."""

TOO_FAR = 4.0
"""Times the loss: a step that promises a fall of r times a loss that is never below 0 ends, if the
loss is a parabola along it, at (1 - r/2)^2 times that loss or higher: above where it began from 4 on."""

RISEN = 2.0
"""Times the loss of the first step, and of the step that went too far: then it did rise."""

DEAD, SATURATED = 0.7, 0.9
"""Shares of a layer."""

ROWS = 512
"""Rows that have to be seen before a unit is called dead."""


@dataclass
class Judge:
    """Remembers what was seen and says what it means."""

    _norms: Running = field(default_factory=Running)
    _streaks: dict[str, int] = field(default_factory=dict)
    _first_loss: float = math.nan
    _longest: float = 0.0
    _too_far: tuple[Seen, float] | None = None

    def judge(self, seen: Seen, rows: int) -> Iterator[Finding]:
        """Yield the findings that a watched step proves.

        Args:
            seen: what was measured.
            rows: how many rows the layers have seen since the watch began.
        """
        at = (seen.step, seen.step)
        if seen.bad:
            yield Finding(
                "non-finite",
                "critical",
                "high",
                f"the gradient of {', '.join(seen.bad[:3])} is not finite at step {seen.step}",
                where=seen.bad[0],
                steps=at,
            )
            return
        if self._lasting("exploding", self._exploded(seen)):
            yield Finding(
                "exploding-gradient",
                "critical",
                "medium",
                f"the gradient's norm is {seen.gradient_norm:.3g}, {EXPLODED:g} times its median "
                f"{self._norms.median:.3g} and more, in {AGAIN} watched steps",
                steps=at,
                evidence={"gradient norm": seen.gradient_norm, "median": self._norms.median},
            )
        else:
            self._norms.add(seen.gradient_norm)
        self._longest = max(self._longest, seen.gradient_norm)
        # A run that has arrived does not move either, but its gradient is short.
        steep = seen.gradient_norm > ARRIVED * self._longest
        if self._lasting("nothing", not seen.moved and steep):
            yield Finding(
                "step-has-no-effect",
                "critical",
                "high",
                f"optimizer.step() changed no weight in {AGAIN} watched steps, at gradients that "
                "are not 0",
                steps=at,
            )
        if self._lasting("uncleared", bool(seen.uncleared)):
            yield Finding(
                "missing-zero-grad",
                "critical",
                "high",
                f"gradients of the step before were still there in {AGAIN} watched steps: call "
                "optimizer.zero_grad() before backward",
                steps=at,
            )
        for name, share in seen.dead.items():
            if rows >= ROWS and share >= DEAD:
                yield Finding(
                    "dead-units",
                    "warning",
                    "high",
                    f"{share:.0%} of the units of {name} were 0 for each of {rows} rows",
                    where=name,
                    steps=at,
                    evidence={"share": share, "rows": rows},
                )
        for name, share in seen.saturated.items():
            if self._lasting(f"saturated {name}", share >= SATURATED):
                yield Finding(
                    "saturated-units",
                    "warning",
                    "medium",
                    f"{share:.0%} of the pre-activations of {name} are at 5 and beyond",
                    where=name,
                    steps=at,
                    evidence={"share": share},
                )

    def judge_loss(self, seen: Seen, loss: float) -> Iterator[Finding]:
        """Yield what the loss of a watched step adds to what was measured in it.

        Args:
            seen: the step.
            loss: that of its batch, before the step.
        """
        yield from self.judge_end(seen, loss)
        if math.isnan(self._first_loss):
            self._first_loss = loss
        if loss > 0 and math.isfinite(loss) and seen.promised > TOO_FAR * loss:
            self._too_far = seen, loss
        else:
            self._too_far = None

    def judge_end(self, seen: Seen, loss: float) -> Iterator[Finding]:
        """Yield what a loss says of the last watched step before it, which may have gone too far."""
        if self._too_far is None:
            return
        far, before = self._too_far
        if loss <= RISEN * max(before, self._first_loss):
            return
        yield Finding(
            "lr-too-high",
            "critical",
            "medium",
            f"at step {far.step} the gradient promised a fall of {far.promised:.3g} for the step "
            f"that was made, of a loss of {before:.3g}; it is {loss:.3g} later, and was "
            f"{self._first_loss:.3g} at first: lr is too high, or the data or the weights are too "
            "large for it",
            steps=(far.step, max(seen.step, far.step)),
            evidence={
                "loss": before,
                "promised fall": far.promised,
                "update/weight": far.update_ratio,
                "loss after": loss,
                "loss at first": self._first_loss,
            },
        )

    def _exploded(self, seen: Seen) -> bool:
        if len(self._norms.values) < SURE or not self._norms.median > 0:
            return False
        return seen.gradient_norm > EXPLODED * self._norms.median

    def _lasting(self, what: str, now: bool) -> bool:
        self._streaks[what] = self._streaks.get(what, 0) + 1 if now else 0
        return self._streaks[what] >= AGAIN
