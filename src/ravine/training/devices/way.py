"""The way in which steps are computed, as a run is asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ravine.errors import ArgumentError, ArgumentTypeError, unknown_name
from ravine.training.devices.joining import processes
from ravine.training.devices.precision import NAMES

PARALLEL = ("data", "sharded")


@dataclass(frozen=True)
class Way:
    """How a step is computed; what it computes is the same but for rounding.

    Attributes:
        accumulate: passes that a process makes for one step.
        precision: "float32", "bfloat16" or "float16".
        parallel: "data" or "sharded" with several processes, else None.
        compile: whether ``torch.compile`` makes the model's forward and backward.
        checkpoint_activations: whether blocks are computed again in the backward pass.
    """

    accumulate: int = 1
    precision: str = "float32"
    parallel: str | None = None
    compile: bool = False
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        if type(self.accumulate) is not int or self.accumulate < 1:
            raise ArgumentError(
                "accumulate cannot be used", got=repr(self.accumulate), expected="an integer >= 1"
            )
        if self.precision not in NAMES:
            raise unknown_name("precision", str(self.precision), NAMES)
        if self.parallel is not None and self.parallel not in PARALLEL:
            raise unknown_name("parallel", str(self.parallel), PARALLEL)
        for name in ("compile", "checkpoint_activations"):
            if not isinstance(value := getattr(self, name), bool):
                raise ArgumentTypeError(
                    f"{name} cannot be used", got=repr(value), expected="True or False"
                )

    def to_config(self) -> dict[str, Any]:
        """Return the fields as a configuration has them."""
        return asdict(self)


MAY_CHANGE = tuple(field.name for field in fields(Way) if field.name != "precision")
"""What a run that goes on may change: it moves nothing but rounding."""


def settled(given: Mapping[str, Any], saved: Mapping[str, Any] | None) -> Way:
    """Return the way of a run.

    Args:
        given: fields that the caller gave, or None.
        saved: the configuration of the run that goes on, which decides what is not given.
    """
    values: dict[str, Any] = {"parallel": "data"} if processes() > 1 else {}
    for source in (saved or {}, given):
        names = (field.name for field in fields(Way))
        values |= {name: source[name] for name in names if source.get(name) is not None}
    return Way(**values)
