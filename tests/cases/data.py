"""The data of the cases: small, from scikit-learn or made, split into train, valid and test."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from sklearn import datasets
from torch import Tensor

from ravine.tasks.preparation import Standardiser, split_rows

Pair = tuple[Tensor, Tensor]


class Parts(NamedTuple):
    """Three pairs (X, y)."""

    train: Pair
    valid: Pair
    test: Pair

    def parts(self, *names: str) -> dict[str, Pair]:
        """Return pairs by their names, as keywords of a Task; train and valid if none is named."""
        return {name: getattr(self, name) for name in names or ("train", "valid")}

    def mapped(self, X: Any = lambda X: X, y: Any = lambda y: y) -> Parts:
        """Return the parts with inputs and targets changed by functions."""
        return Parts(*((X(inputs), y(targets)) for inputs, targets in self))


def split(
    X: Tensor,
    y: Tensor,
    seed: int,
    *,
    scaled: bool = True,
    share: float = 0.2,
    pixels: bool = False,
) -> Parts:
    """Split at random, classes in proportion; inputs standardised by the training part if asked."""
    classes = y if y.dtype == torch.int64 and y.ndim == 1 else None
    rows = split_rows(len(X), seed, classes=classes, valid=share, test=share)
    if scaled:
        X = Standardiser.of(X[rows.train], per_column=not pixels)(X)
    return Parts(*rows.of(X.float(), y))


@cache
def _read(name: str) -> Pair:
    """Read the files once: scikit-learn parses text for 50 ms."""
    options = {"scaled": False} if name == "diabetes" else {}
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True, **options)
    targets = torch.as_tensor(y)
    targets = targets.float()[:, None] if name == "diabetes" else targets.long()
    return torch.as_tensor(X).float(), targets


@cache
def _written() -> str:
    from ravine.tasks.text import documentation_text

    return documentation_text().lower()


def loaded(name: str, seed: int, *, scaled: bool = True, share: float = 0.2) -> Parts:
    """One of scikit-learn's: iris, wine, breast_cancer, diabetes, digits."""
    inputs, targets = _read(name)
    parts = split(inputs, targets, seed, scaled=scaled, share=share, pixels=name == "digits")
    if name == "diabetes" and scaled:
        scale = Standardiser.of(parts.train[1])
        parts = parts.mapped(y=scale)
    return parts


def digits(seed: int, rows: int | None = None, *, scaled: bool = True) -> Parts:
    """Handwritten digits (64 pixels); the training part cut to a number of rows if given."""
    parts = loaded("digits", seed, scaled=scaled)
    if rows is None:
        return parts
    chosen = torch.randperm(len(parts.train[0]), generator=generator(seed))[:rows]
    return parts._replace(train=(parts.train[0][chosen], parts.train[1][chosen]))


def images(parts: Parts) -> Parts:
    """Rows of 64 pixels as 1 x 8 x 8."""
    return parts.mapped(X=lambda X: X.view(-1, 1, 8, 8))


def binary(parts: Parts) -> Parts:
    """Labels {0, 1} as floating targets (N, 1)."""
    return parts.mapped(y=lambda y: y.float()[:, None])


def generator(seed: int) -> torch.Generator:
    """Return a generator of a seed, apart from the global one."""
    return torch.Generator().manual_seed(seed + 77)


def moons(seed: int, rows: int = 500, noise: float = 0.2) -> Parts:
    """Two interleaved half circles, labels {0, 1}."""
    X, y = datasets.make_moons(rows, noise=noise, random_state=seed)
    return split(torch.as_tensor(X), torch.as_tensor(y).long(), seed)


def blobs(
    seed: int, rows: int = 600, centers: Any = 3, std: float = 1.0, features: int = 2
) -> Parts:
    """Clusters of equal spread."""
    X, y = datasets.make_blobs(
        rows, n_features=features, centers=centers, cluster_std=std, random_state=seed
    )
    return split(torch.as_tensor(X), torch.as_tensor(y).long(), seed)


def friedman(seed: int, rows: int = 600, features: int = 9, noise: float = 1.0) -> Parts:
    """Tabular regression with interactions; inputs and targets standardised."""
    X, y = datasets.make_friedman1(rows, n_features=features, noise=noise, random_state=seed)
    parts = split(torch.as_tensor(X), torch.as_tensor(y).float()[:, None], seed)
    return parts.mapped(y=Standardiser.of(parts.train[1]))


def sequences(seed: int, rows: int = 600, length: int = 12, symbols: int = 6) -> Parts:
    """Sequences of symbols (N, T) int64; the class is which of symbols 0 and 1 comes first."""
    X = torch.randint(0, symbols, (rows, length), generator=generator(seed))
    X[:, -1], X[:, -2] = 0, 1  # both occur
    first = [(symbol == X).float().argmax(1) for symbol in (0, 1)]
    return split(X, (first[0] < first[1]).long(), seed, scaled=False).mapped(X=lambda X: X.long())


def text(seed: int, windows: int = 400, length: int = 24) -> tuple[Parts, int]:
    """Windows of Python's documentation with targets one character ahead, and the alphabet's size."""
    written = _written()[: 2 * windows * (length + 1)]
    alphabet = sorted(set(written))
    number = {character: index for index, character in enumerate(alphabet)}
    codes = torch.tensor([number[character] for character in written])
    rows = codes[: len(codes) // (length + 1) * (length + 1)].view(-1, length + 1)
    rows = rows[torch.randperm(len(rows), generator=generator(seed))[:windows]]
    cut = [int(0.7 * windows), int(0.85 * windows)]
    pairs = [(part[:, :-1], part[:, 1:]) for part in rows.tensor_split(cut)]
    return Parts(*pairs), len(alphabet)


def recall(seed: int, rows: int = 600, length: int = 24, symbols: int = 6) -> Parts:
    """Sequences of symbols (N, T) int64; the class is whether the first symbol is below the half."""
    X = torch.randint(0, symbols, (rows, length), generator=generator(seed))
    y = (X[:, 0] < symbols // 2).long()
    return split(X, y, seed, scaled=False).mapped(X=lambda X: X.long())


def bars(seed: int, rows: int = 600) -> Parts:
    """Images 1 x 8 x 8 of a bright or a dark bar; the class is whether it lies or stands."""
    source = generator(seed)
    X = 0.3 * torch.randn(rows, 1, 8, 8, generator=source)
    lying = torch.randint(0, 2, (rows,), generator=source)
    place = torch.randint(0, 8, (rows,), generator=source)
    sign = 2 * torch.randint(0, 2, (rows,), generator=source) - 1
    for row in range(rows):
        line = X[row, 0, place[row]] if lying[row] else X[row, 0, :, place[row]]
        line += sign[row]
    return split(X, lying, seed, scaled=False)


def circles(seed: int, rows: int = 500) -> Parts:
    """A ring around a disc, labels {0, 1}."""
    X, y = datasets.make_circles(rows, noise=0.08, factor=0.5, random_state=seed)
    return split(torch.as_tensor(X), torch.as_tensor(y).long(), seed)


def sums(seed: int, rows: int = 600, length: int = 6, symbols: int = 30) -> Parts:
    """Sequences of numbers as symbols (N, T) int64; the class is whether their sum is large."""
    X = torch.randint(0, symbols, (rows, length), generator=generator(seed))
    y = (X.sum(1) > length * (symbols - 1) / 2).long()
    return split(X, y, seed, scaled=False).mapped(X=lambda X: X.long())
