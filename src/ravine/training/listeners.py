"""The listeners that a run directory brings with it."""

from __future__ import annotations

from pathlib import Path

from ravine.errors import ArgumentError
from ravine.training.events import Listener
from ravine.training.lines import STEPS
from ravine.training.step_log import StepLog
from ravine.training.tensorboard import TensorBoardListener

__all__ = ["TENSORBOARD", "files_of"]

TENSORBOARD = "tensorboard"
"""The folder of event files in a run directory."""


def files_of(run_dir: str | Path | None, *, tensorboard: bool) -> list[Listener]:
    """Return the listeners that write the events of a run into its directory.

    Args:
        run_dir: the directory, or None for a run without.
        tensorboard: event files too, also where a run that goes on has some already.

    Raises:
        ArgumentError: there is no directory for the event files.
        MissingPackageError: TensorBoard is not installed.
    """
    if run_dir is None:
        if tensorboard:
            raise ArgumentError(
                "there is no folder for TensorBoard's event files",
                got="tensorboard=True without run_dir",
                do="give run_dir, or listeners=[TensorBoardListener(folder)]",
            )
        return []
    steps = StepLog(Path(run_dir, STEPS))
    board = Path(run_dir, TENSORBOARD)
    return [steps, TensorBoardListener(board)] if tensorboard or board.exists() else [steps]
