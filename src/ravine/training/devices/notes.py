"""What a person should know of the way in which steps are computed, before the run begins."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ravine.training.devices.devices import Devices
from ravine.training.devices.way import Way

__all__ = ["notes_of"]


def notes_of(model: nn.Module, way: Way, devices: Devices, size: int) -> list[str]:
    """Return sentences on what is not as in one process with whole batches, or not as asked for.

    Args:
        model: what is trained.
        way: what was asked for.
        devices: what came of it.
        size: rows of a batch, of all processes together.
    """
    notes = []
    if way.parallel is not None and devices.team.world == 1:
        notes.append(
            f"parallel={way.parallel!r} has no effect: there is one process; "
            "torchrun --nproc-per-node starts several"
        )
    passes, world = devices.parts.passes, devices.team.world
    names = [name or type(model).__name__ for name, one in model.named_modules() if _apart(one)]
    if names and passes * world > 1:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rows = -(-size // (passes * world))
        notes.append(
            f"batch norm ({shown}) takes mean and variance of {rows} rows at a time, not of the "
            f"{size} of a batch, which {_parts(world, passes)}: losses are not those of one process "
            "with whole batches; GroupNorm and LayerNorm do not differ"
        )
    return notes


def _apart(module: nn.Module) -> bool:
    """Whether a module looks at the rows that it is given together."""
    return isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)


def _parts(world: int, passes: int) -> str:
    by = [f"{world} processes"] * (world > 1) + [f"{passes} passes"] * (passes > 1)
    return f"{' of '.join(reversed(by))} share"
