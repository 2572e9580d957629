"""A small task and a file of one, which the tests of tasks share."""

from __future__ import annotations

import torch
from torch import nn

from ravine.tasks import Task

GOOD_FILE = """
import torch
import ravine.tasks

def task(seed):
    X = torch.rand(8, 2)
    return ravine.tasks.Task(model=torch.nn.Linear(2, 1), loss="mse", train=(X, X[:, :1]))
"""


def make(**changes):
    X = torch.arange(12.0).view(6, 2)
    settings = {"model": nn.Linear(2, 1), "loss": "mse", "train": (X, X[:, :1])}
    return Task(**(settings | changes))
