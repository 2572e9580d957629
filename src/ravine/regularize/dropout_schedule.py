"""Dropout whose probability changes with the step."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ravine.regularize import checks
from ravine.regularize.model_dropout import dropout_places
from ravine.regularize.part import Batch, Part


class ScheduledDropout(Part):
    """Sets the probability of every dropout of a model before each step.

    Args:
        schedule: the probability as a function of the step, from 0.

    Source: Morerio et al. 2017, "Curriculum Dropout" (rising); the falling kind is Liu et al.
    2023, "Dropout Reduces Underfitting".
    """

    def __init__(self, schedule: Callable[[int], float]) -> None:
        self.schedule = schedule
        self._places: list[tuple[nn.Module, str]] = []

    def begin(self, model: nn.Module) -> None:
        self._places = dropout_places(model)

    def batch(self, batch: Batch, step: int) -> Batch:
        p = checks.probability(f"dropout: p at step {step}", float(self.schedule(step - 1)))
        for module, name in self._places:
            if getattr(module, name) != p:
                setattr(module, name, p)
        return batch
