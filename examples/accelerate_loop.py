"""A loop for Accelerate: our optimizer, loss and schedule. Run it with python, or `accelerate launch`."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from ravine.losses import cross_entropy
from ravine.optim import AdamW
from ravine.schedules import cosine, warmup


def main() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data).float() / 16, torch.tensor(digits.target))
    batches = DataLoader(data, batch_size=32, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = AdamW(
        model.parameters(),
        lr=warmup(10) >> cosine(135, peak=1e-2),  # no scheduler object to prepare
        clip_norm=1.0,  # no accelerator.clip_grad_norm_: it is in the same pass
    )
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    for epoch in range(5):
        for inputs, targets in batches:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        rate = optimizer.param_groups[0]["lr"]
        accelerator.print(f"epoch {epoch}  loss {loss.item():.4f}  lr {rate:.2e}")
    accelerator.print(optimizer.optimizer.explain())  # .optimizer is ours, inside of the wrapper


if __name__ == "__main__":
    main()
