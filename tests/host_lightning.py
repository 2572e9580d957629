"""A Lightning module around the small model, and trainers that say nothing and write where told."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from host_cases import digits, perceptron, snapshot
from torch.utils.data import DataLoader

import ravine.losses


@cache
def lightning() -> Any:
    """Return Lightning, which takes seconds to import; only the tests that need it do."""
    import logging

    import lightning.pytorch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning.pytorch


@cache
def module_class() -> Any:
    class Digits(lightning().LightningModule):  # type: ignore[misc]
        """Keeps the weights after every optimizer step, and the lr of it."""

        def __init__(
            self, configure: Any, *, loss=ravine.losses.cross_entropy, dtype=torch.float64
        ):
            super().__init__()
            self.net = perceptron(dtype)
            self.configure, self.loss = configure, loss
            self.trail, self.rates = [], []

        def configure_optimizers(self):
            return self.configure(self.parameters())

        def training_step(self, batch, number):
            inputs, targets = batch
            return self.loss(self.net(inputs), targets)

        def on_train_batch_end(self, outputs, batch, number):
            if self.trainer.global_step > len(self.trail):
                self.trail.append(snapshot(self.net.parameters()))
                self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    return Digits


def trainer(folder: Path, **options: Any) -> Any:
    return lightning().Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": folder,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
            "precision": "64-true",
            **options,
        }
    )


def batches(rows: int = 160, dtype: torch.dtype = torch.float64) -> DataLoader:
    return DataLoader(digits(rows, dtype), batch_size=16)
