"""What a regulariser may do to a run."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import nn

from ravine.regularize.early_stopping import EarlyStopping
from ravine.regularize.part import Part


@dataclass(frozen=True, repr=False)
class Regularizer:
    """What a regulariser does to a run. A training loop calls all five; the defaults do nothing.

    Example:
        >>> from ravine.regularize import REGULARIZERS
        >>> REGULARIZERS["clip_norm"](1.0).optimizer_options()
        {'clip_norm': 1.0}
        >>> REGULARIZERS["clip_norm"](1.0)
        clip_norm(1.0)
    """

    def prepare_model(self, model: nn.Module, *, seed: int = 0) -> str:
        """Change the model in place before the optimizer is made; return a note, or "".

        Args:
            model: the model that will be trained.
            seed: the seed of the run.
        """
        return ""

    def optimizer_options(self) -> dict[str, Any]:
        """Return options of `ravine.optim.Optimizer`.

        ``l1`` and ``l2`` are meant for weights, not for biases and norms: a loop gives them to
        `ravine.regularize.decay_groups`, and the other options to the optimizer itself.
        """
        return {}

    def loss_options(self) -> dict[str, Any]:
        """Return options of the loss."""
        return {}

    def stopper(self) -> EarlyStopping | None:
        """Return a new object that decides after each epoch whether to stop, or None."""
        return None

    def part(self, *, seed: int = 0) -> Part | None:
        """Return a new object that acts while the run trains, or None.

        Args:
            seed: the seed of the run.
        """
        return None

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING:
                parts.append(repr(value))
            elif value != field.default:
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"
