"""A task of one's own, for `ravine train examples/my_task.py`."""

import torch

import ravine


def task(seed):
    """Two interleaved spirals, told apart by a small network."""
    generator = torch.Generator().manual_seed(seed)
    angle = 3 * torch.pi * torch.rand(1200, generator=generator).sqrt()
    side = torch.arange(1200) % 2
    phase = angle + torch.pi * side
    points = torch.stack([angle * phase.cos(), angle * phase.sin()], dim=1) / 10
    points += 0.02 * torch.randn(points.shape, generator=generator)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(),
        torch.nn.Linear(64, 2),
    )  # fmt: skip
    return ravine.Task(
        name="spirals",
        model=model,
        loss="cross_entropy",
        train=(points[:1000], side[:1000]),
        valid=(points[1000:], side[1000:]),
        metrics=["accuracy"],
        optimizer="adam(lr=cosine(1600, peak=1e-2))",
        epochs=100,
    )
