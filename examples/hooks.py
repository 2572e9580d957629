"""Code of one's own inside a run: a metric that is kept, a stop, histograms for TensorBoard."""

import tempfile
from pathlib import Path

import torch

import ravine
from ravine.training.tensorboard import TensorBoardListener

task = ravine.tasks.load_task("wine", seed=0)
inputs, targets = task.valid
folder = Path(tempfile.mkdtemp())
board = TensorBoardListener(folder / "tensorboard")


def on_step(state):
    """After every step: the state has step, epoch, loss, lr, model, optimizer, inputs, targets."""
    if state.step == 1:
        print(f"first step: loss {state.loss:.3f} on {len(state.inputs)} rows")
    if state.loss < 0.01:
        state.stop(f"the loss of step {state.step} is below 0.01")


def on_epoch(row, state):
    """After every epoch and its validation: what is logged stands in the history and on the page."""
    with state.averaged(), torch.no_grad():
        state.model.eval()
        chosen = state.model(inputs).argmax(1)
    recall = min((chosen[targets == k] == k).float().mean().item() for k in targets.unique())
    state.log("valid/worst_recall", recall)
    for name, weight in state.model.named_parameters():
        board.writer.add_histogram(name, weight, state.step)


def on_end(record):
    """When all is written, however the run ended."""
    print(f"{record.status}: {record.message}")


record = ravine.train(
    task, epochs=60, listeners=[board], on_step=on_step, on_epoch=on_epoch, on_end=on_end
)
print(record.history.to_frame()[["valid/loss", "valid/worst_recall"]].tail(3))
print(sum(1 for _ in (folder / "tensorboard").iterdir()), "event file")
