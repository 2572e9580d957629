"""What every test file shares: float64 numbers and optimizers' gradients, from a seed."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """Begin every test with the same random numbers."""
    torch.manual_seed(0)
