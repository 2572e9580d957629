"""The causal Transformer of the `text` task."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ravine.errors import ShapeError


class Block(nn.Module):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.attention_dropout = nn.Dropout(0.0)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.mlp_dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        stacked = self.queries_keys_values(self.attention_norm(x))
        heads = stacked.view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        x = x + self.attention_dropout(self.mix(attended))
        hidden = F.gelu(self.widen(self.mlp_norm(x)), approximate="tanh")
        out: Tensor = x + self.mlp_dropout(self.narrow(hidden))
        return out


class CausalTransformer(nn.Module):
    """Logits of the next symbol at each position, from the symbols up to it.

    Args:
        symbols: size of the vocabulary.
        context: the longest sequence, one learned position embedding each.
        width, heads, layers: size of the model; heads divides width.

    Input int64 (B, T) with T <= context, output (B, T, symbols).

    >>> CausalTransformer(5, context=8, width=16, heads=2, layers=1)(torch.zeros(3, 8).long()).shape
    torch.Size([3, 8, 5])
    """

    def __init__(self, symbols: int, *, context: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.context = context
        self.symbol = nn.Embedding(symbols, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)
        self._initialise(layers)

    def forward(self, symbols: Tensor) -> Tensor:
        length = symbols.shape[-1]
        if symbols.ndim != 2 or length > self.context:
            raise ShapeError(
                "the model takes a batch of sequences up to its context",
                got=str(tuple(symbols.shape)),
                expected=f"(B, T) with T <= {self.context}",
                do="cut the text into windows",
            )
        x = self.symbol(symbols) + self.position.weight[:length]
        output: Tensor = self.head(self.norm(self.blocks(x)))
        return output

    @torch.no_grad()
    def _initialise(self, layers: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                # Larger than the usual 0.02: the update of a rule like Adam has one size for all
                # weights and takes long to make small embeddings large.
                nn.init.normal_(module.weight, std=0.5)
        for module in self.modules():
            if isinstance(module, Block):  # the sum over all branches keeps its size
                for branch in (module.mix, module.narrow):
                    branch.weight.mul_(1 / math.sqrt(2 * layers))
        self.head.weight.mul_(0.2)  # the first loss is close to ln(symbols)
