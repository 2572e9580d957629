"""`ravine.find_lr`: a learning rate from a range test, or an honest "can't tell"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ravine.errors import ArgumentError, ConfigError, UndecidedError
from ravine.tasks.loading import TaskSource
from ravine.tasks.seeding import check_seed, seeded
from ravine.training.batches import BatchSize
from ravine.training.choices import settle
from ravine.training.config.expressions import with_option
from ravine.training.environment import environment
from ravine.training.lr_suggestion import Suggestion, suggest
from ravine.training.range_test import Sweep, sweep
from ravine.training.threads import threads_for
from ravine.training.train import choose_device

__all__ = ["RangeTest", "find_lr"]


@dataclass(frozen=True)
class RangeTest:
    """The result of `find_lr`.

    Attributes:
        name: the task's name.
        config: what was tested, resolved; the choices as expressions.
        lrs: the learning rates, ascending.
        sweeps: what each seed gave, see `ravine.training.range_test.Sweep`.
        suggestion: what follows from them, see `ravine.training.lr_suggestion.Suggestion`.
    """

    name: str
    config: dict[str, Any]
    lrs: list[float]
    sweeps: list[Sweep]
    suggestion: Suggestion

    @property
    def found(self) -> bool:
        """Whether the test decides; `lr` raises where it does not."""
        return self.suggestion.lr is not None

    @property
    def lr(self) -> float:
        """The suggested learning rate.

        Raises:
            UndecidedError: the test does not decide; the message says why.
        """
        if self.suggestion.lr is None:
            raise UndecidedError(
                "the range test cannot tell a learning rate",
                where=f"task {self.name!r}, {self.config['optimizer']}",
                got=self.suggestion.reason,
            )
        return self.suggestion.lr

    @property
    def optimizer(self) -> str | None:
        """The optimizer with the suggested learning rate, as an expression; None without either."""
        if not self.found:
            return None
        try:
            text, value = self.config["optimizer"], repr(self.lr)
            return with_option("optimizer", text, ["lr"], value, "find_lr")
        except ConfigError:  # a function of the caller's own
            return None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain dictionaries, lists, words and numbers."""
        from ravine import __version__

        return {
            "kind": "lr-find",
            "name": self.name,
            "ravine": __version__,
            "found": self.found,
            "optimizer": self.optimizer,
            **asdict(self.suggestion),
            "config": self.config,
            "environment": environment(),
            "lrs": self.lrs,
            "sweeps": [asdict(sweep) for sweep in self.sweeps],
        }

    def __repr__(self) -> str:
        said = f"lr={self.suggestion.lr:g}" if self.suggestion.lr is not None else "can't tell"
        return f"RangeTest({self.name!r}, {said}: {self.suggestion.reason})"


def find_lr(
    task: TaskSource,
    optimizer: Any = None,
    *,
    loss: Any = None,
    batch_size: BatchSize | None = None,
    regularize: Iterable[Any] | None = None,
    seeds: int | Sequence[int] = 3,
    steps: int = 100,
    start: float = 1e-7,
    stop: float = 10.0,
    device: str | torch.device = "auto",
) -> RangeTest:
    """Find a learning rate: train a few steps while it grows from ``start`` to ``stop``.

    Every seed starts from its own weights (of a task that is made here) and order of the data, and
    each step's learning rate is larger by the same factor. Each batch is compared with what the
    weights of the start make of it, so that the batch's own difficulty cancels. The suggestion is
    the learning rate at which the median over the seeds has made two thirds of its largest fall
    (`ravine.training.lr_suggestion.suggest`). It is a peak: a schedule that falls to zero may have
    it as its highest value.

    Args:
        task, optimizer, loss, batch_size, regularize, device: as in `ravine.train`; the lr of the
            optimizer is not used, and groups keep the ratio of theirs.
        seeds: how many, from 0, or which.
        steps: of each seed, >= 20.
        start, stop: the range of the learning rate, 0 < start < stop.

    Returns:
        A `RangeTest`: ``.found``, ``.lr`` (an error with the reason where nothing was found),
        ``.suggestion``, ``.sweeps``, ``.to_json()``. A loss that is not finite ends a sweep and is no
        error. The task's own model is left as it was.

    Raises:
        RavineError: an argument or the task cannot be used.

    On data smaller than ``steps`` batches rows come again, and what is learnt by heart counts as a
    fall of the loss.

    Example:
        >>> import ravine
        >>> test = ravine.find_lr("wine", "sgd")
        >>> test.found, 0.01 < test.lr < 1
        (True, True)

    Differs from Lightning's and fastai's finders: several seeds, a comparison batch by batch instead
    of an exponential average, and an answer that says so where nothing can be told.

    Source: Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3.
    """
    chosen = _seeds(seeds)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 20:
        raise ArgumentError("steps cannot be used", got=repr(steps), expected="an integer >= 20")
    if not 0 < start < stop < math.inf:
        raise ArgumentError(
            "the range of the learning rate cannot be used",
            got=f"start={start!r}, stop={stop!r}",
            expected="0 < start < stop, both finite",
        )
    lrs = [start * (stop / start) ** (k / (steps - 1)) for k in range(steps)]
    where = choose_device(device)
    sweeps = []
    for seed in chosen:
        choices = settle(task, optimizer, loss, batch_size, 1, regularize, seed, where, None)
        with seeded(seed), threads_for(choices.task, choices.batch_size, where):
            sweeps.append(sweep(choices, lrs))
    config = {k: v for k, v in choices.config.items() if k not in ("epochs", "seed")}
    config |= {"seeds": chosen, "steps": steps, "start": start, "stop": stop}
    return RangeTest(choices.task.name, config, lrs, sweeps, suggest(lrs, sweeps))


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        return list(range(seeds))
    if isinstance(seeds, Sequence) and not isinstance(seeds, str) and len(seeds):
        found = [check_seed(seed) for seed in seeds]
        if len(set(found)) == len(found):
            return found
    raise ArgumentError(
        "seeds cannot be used", got=repr(seeds), expected="a number >= 1, or different seeds"
    )
