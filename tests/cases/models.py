"""The architectures of the cases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from ravine.tasks.transformer import CausalTransformer


def mlp(
    *widths: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    head: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Linear layers of the widths with an activation between, and a head after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    layers[-1:] = [] if head is None else [head()]
    return nn.Sequential(*layers)


def cnn(classes: int = 10, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two convolutions on 1 x 8 x 8 and a linear head."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), activation(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), activation(), nn.Flatten(), nn.Linear(256, classes),
    )  # fmt: skip


class Recurrent(nn.Module):
    """Embedding, an LSTM, GRU or RNN, and a linear head on the last state."""

    def __init__(
        self, symbols: int, classes: int, width: int = 16, kind: str = "LSTM", **options: object
    ) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.recurrent = getattr(nn, kind)(width, width, batch_first=True, **options)
        self.head = nn.Linear(width, classes)

    def forward(self, symbols: Tensor) -> Tensor:
        states, _ = self.recurrent(self.symbol(symbols))
        output: Tensor = self.head(states[:, -1])
        return output


def transformer(symbols: int, context: int = 24, width: int = 32, layers: int = 1) -> nn.Module:
    """A small causal Transformer: logits of the next symbol, classes last."""
    return CausalTransformer(symbols, context=context, width=width, heads=2, layers=layers)


class Pooled(nn.Module):
    """A Transformer encoder over symbols and the mean of its outputs, for classes of sequences."""

    def __init__(self, symbols: int, classes: int, length: int, width: int = 16) -> None:
        super().__init__()
        self.inner = CausalTransformer(symbols, context=length, width=width, heads=2, layers=1)
        self.inner.head = nn.Linear(width, classes)

    def forward(self, symbols: Tensor) -> Tensor:
        output: Tensor = self.inner(symbols)[:, -1]
        return output
