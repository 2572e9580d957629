"""What is done when a run meets numbers that are not finite, or a loss that runs away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ravine.errors import ArgumentError, Interrupted, NonFiniteError
from ravine.training.checkpoints import Led, Memory, Position
from ravine.training.events import Recovered
from ravine.training.finite import all_finite, nonfinite_error
from ravine.training.keeper import Keeper
from ravine.training.loop import Loop
from ravine.training.lowering import FACTOR, lower_schedules
from ravine.training.record import History
from ravine.training.recovery.culprit import culprit
from ravine.training.recovery.policy import ROLLBACKS, Nonfinite
from ravine.training.recovery.replay import to_step_before
from ravine.training.state import load_state, state_of

__all__ = ["RUNAWAY", "Recovery"]

RUNAWAY, RISES = 1e3, 3
"""A loss has run away when its mean over an epoch is more than 1000 times that of the first, and
higher than that of the epoch before, 3 epochs in a row."""


@dataclass
class Recovery:
    """Keeps the places that a run may go back to, and takes it there.

    Args:
        loop, keeper, history: those of the run.
        policy: what to do.
        points: where the places are kept, for "rollback".
        tell: called with what was done.
        rewrite: called when rows of the history were taken back.
    """

    loop: Loop
    keeper: Keeper
    history: History
    policy: Nonfinite
    points: Led
    tell: Callable[[Recovered], object]
    rewrite: Callable[[], object]

    def begin(self, *, new_lr: bool = False) -> None:
        """Keep where the run begins, if there is no earlier place to go back to.

        Args:
            new_lr: earlier places have another learning rate.

        Raises:
            ArgumentError: a scheduler sets the learning rate that is to be lowered.
        """
        if new_lr:
            self.keeper.begin()
        if self.policy != "rollback":
            return
        if self.loop.scheduler is not None:
            raise ArgumentError(
                "a run with a scheduler cannot go back: it would set the learning rate anew",
                got="nonfinite='rollback' and a task with a scheduler",
                do="give the optimizer a schedule as its lr, or take another policy",
            )
        here = self.keeper.position
        self.points.drop_after(here)
        if new_lr or self.points.newest(here)[0] is None:
            self._keep_point(anew=True)
            self.points.wait()  # a run that fails in its first step leaves nothing behind

    def after_step(self) -> None:
        """Keep this place if checkpoints are written by steps and one falls here."""
        self.keeper.after_step()
        steps = self.keeper.every.steps
        if self.policy == "rollback" and steps is not None and self.loop.step % steps == 0:
            self._keep_point()

    def after_epoch(self) -> None:
        """Keep the end of an epoch, and look whether the loss runs away.

        Raises:
            NonFiniteError: it does.
        """
        if self.policy == "rollback":
            self._keep_point()
        if self.policy == "skip" or len(self.history) <= RISES:
            return
        first = float(self.history[0]["train/loss"])
        last = [float(row["train/loss"]) for row in self.history[-RISES - 1 :]]
        rises = all(a < b for a, b in itertools.pairwise(last))
        if rises and first > 0 and min(last[1:]) > RUNAWAY * first:
            raise NonFiniteError(
                "the loss runs away",
                where=f"epoch {self.loop.epoch}, step {self.loop.step}",
                got=f"a mean training loss of {last[-1]:.3g}; lr {self.loop.lr:g}",
                expected=f"less than {RUNAWAY:g} times the first epoch's {first:.3g}, "
                f"or one that falls within {RISES} epochs",
                do=f"lower lr (try {self.loop.lr / 10:g}), clip the gradient (clip_norm=1), "
                "or warm up (lr=warmup(100) >> ...)",
            )

    def recover(self, error: NonFiniteError) -> None:
        """Put the loop where it goes on.

        Raises:
            NonFiniteError: the run ends; the loop is before the first bad step, with what became
                bad first in the message.
        """
        if self.policy == "rollback" and self.loop.rollbacks < ROLLBACKS:
            self._roll_back(error)
            return
        if error.step is None:  # it ran away, over many steps
            raise error
        raise self._explained(error, error.step) from error

    def end(self) -> None:
        """Wait until the places are on the disk."""
        self.points.close()

    def _keep_point(self, *, anew: bool = False) -> None:
        """Keep this place, if the loss has not run away."""
        loop = self.loop
        rows = self.history
        mean = loop.total / loop.rows if loop.rows else rows[-1]["train/loss"] if rows else 0.0
        first = rows[0]["train/loss"] if rows else math.inf
        if first <= 0 or mean <= RUNAWAY * first:
            self.points.save(self.keeper.position, self.keeper.state(), anew=anew)

    def _roll_back(self, error: NonFiniteError) -> None:
        loop = self.loop
        position, state, _ = self.points.newest()
        if position is not None and position.step == loop.returned_to:
            # It did not help to go back there: too near, with a state that is large already.
            before, earlier, _ = self.points.newest(Position(position.step - 1, position.epoch))
            if before is not None:
                position, state = before, earlier
                self.points.drop_after(position)
        if position is None:
            raise error
        count = loop.rollbacks + 1
        skipped = loop.skipped
        load_state(loop, state["loop"], keep_lr=False)
        lower = FACTOR ** (count - loop.rollbacks)
        loop.rollbacks, loop.skipped, loop.returned_to = count, skipped, loop.step
        for group in loop.optimizer.param_groups:
            if group.get("schedule") is None:
                group["lr"] = group["lr"] * lower
        lower_schedules(loop.optimizer, FACTOR**count)
        self.history[:] = state["history"]
        self.keeper.drop_after(position)
        self.rewrite()
        where = f"step {error.step}" if error.step is not None else "an epoch"
        back = f"back to step {loop.step}, epoch {loop.epoch + 1}" if loop.step else "at the start"
        text = f"{error.what} at {where}: {back}, with lr times {FACTOR**count:g} ({count} so far)"
        self.tell(Recovered(loop.step, loop.epoch, text))

    def _explained(self, error: NonFiniteError, step: int) -> NonFiniteError:
        """Put the loop before the first bad step; return the error that names what became bad."""
        loop = self.loop
        skipper = loop.skipper
        try:
            if loop.devices.team.world > 1:
                # Each has its own rows and weights: what was first in one, the others don't see.
                load_state(loop, self.keeper.earlier(), keep_lr=False)
                return error
            if skipper is not None and all_finite(list(loop.model.parameters())):
                batch = skipper.batch  # the steps were not made
            else:
                step, batch = self._before(step)
            if batch is None:
                return error
            got = self._first_bad(batch)
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as another:
            error.add_note(f"its cause was not found: {type(another).__name__}: {another}")
            return error
        return nonfinite_error(loop, error.what, step, got=got)

    def _before(self, step: int) -> tuple[int, Any]:
        state = self.keeper.earlier()
        return to_step_before(self.loop, state, step, gradients=self.loop.skipper is None)

    def _first_bad(self, batch: Any) -> str:
        """Make the step once more to see what becomes bad, then take it back."""
        before = Memory()
        before.save(self.keeper.position, state_of(self.loop))
        grads = [(p, p.grad) for p in self.loop.model.parameters()]
        try:
            found = culprit(self.loop, batch)
        finally:
            load_state(self.loop, before.newest()[1], keep_lr=False)
            for weight, grad in grads:
                weight.grad = grad
        return found or "nothing that was not finite when the step was repeated"
