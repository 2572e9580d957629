"""A Lightning module with our optimizer, loss and schedule."""

import logging

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import disable_possible_user_warnings
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from ravine.losses import cross_entropy
from ravine.optim import AdamW
from ravine.schedules import cosine, warmup


class Digits(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def training_step(self, batch, number):
        inputs, targets = batch
        return cross_entropy(self.net(inputs), targets, label_smoothing=0.1)

    def validation_step(self, batch, number):
        inputs, targets = batch
        hits = self.net(inputs).argmax(1).eq(targets)
        self.log("accuracy", hits.float().mean(), batch_size=len(targets))

    def on_validation_epoch_end(self) -> None:
        print(
            f"epoch {self.current_epoch}  accuracy {self.trainer.callback_metrics['accuracy']:.3f}"
        )

    def configure_optimizers(self):
        # No scheduler, no gradient_clip_val: schedule and clipping are the optimizer's.
        return AdamW(self.parameters(), lr=warmup(20) >> cosine(205, peak=1e-2), clip_norm=1.0)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    disable_possible_user_warnings()  # that loading digits could use more processes
    pl.seed_everything(0, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data).float() / 16, torch.tensor(digits.target))
    train, valid = torch.utils.data.random_split(data, [1440, 357])
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Digits()
    trainer.fit(module, DataLoader(train, batch_size=32, shuffle=True), DataLoader(valid, 357))
    print(trainer.optimizers[0].explain())


if __name__ == "__main__":
    main()
