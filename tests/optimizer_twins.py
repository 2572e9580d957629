"""The same weights twice, under our optimizer and under torch's, stepped side by side."""

from __future__ import annotations

import pytest
import torch

import ravine.optim

PAIRS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
]
IDS = [name for name, _ in PAIRS]
either = pytest.mark.parametrize("backend", ["cpu", "reference"])
each = pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)


class Twins:
    """The same weights twice, under our optimizer and under torch's."""

    def __init__(self, name, options, backend="auto", count=4):
        self.ours = [torch.nn.Parameter(torch.randn(3, 2).double()) for _ in range(count)]
        self.theirs = [torch.nn.Parameter(w.detach().clone()) for w in self.ours]
        self.a = getattr(ravine.optim, name)(self.ours[:2], backend=backend, **options)
        self.b = getattr(torch.optim, name)(self.theirs[:2], **options)

    def gradients(self, skipped=()):
        for k, (w, v) in enumerate(zip(self.ours, self.theirs, strict=True)):
            w.grad = None if k in skipped else torch.randn(3, 2).double()
            v.grad = None if k in skipped else w.grad.clone()

    def step(self, skipped=()):
        self.gradients(skipped)
        self.a.step()
        self.b.step()
        self.check()

    def check(self):
        for w, v in zip(self.ours, self.theirs, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)

    def groups(self):
        return [*zip(self.a.param_groups, self.b.param_groups, strict=True)]
