"""Made faults of heads, losses and dropout."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.optim import Adam

from cases import data
from cases.case import case
from cases.measures import explained, least_loss
from cases.models import Recurrent, cnn, mlp, transformer
from cases.program import Program
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()
SOFTMAX = partial(nn.Softmax, -1)


@case("double-softmax-mlp", "double-softmax", "wrong-output-activation", measure=least_loss, margin=0.5,
      also=("plateau",))  # fmt: skip
def double_softmax(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 64, 10, head=None if mended else SOFTMAX), loss=CROSS_ENTROPY, batch_size=64,
        epochs=8, optimizer=partial(Adam, lr=2e-3), **data.digits(seed).parts(),
    )  # fmt: skip


@case("double-softmax-in-the-loss", "double-softmax", measure=least_loss, margin=0.3)
def softmax_in_loss(seed: int, mended: bool) -> Task:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        probabilities = output if mended else output.softmax(-1)
        return nn.functional.cross_entropy(probabilities, target)

    return Task(
        model=cnn(), loss=loss, batch_size=64, epochs=6, optimizer=partial(Adam, lr=2e-3),
        **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@case("double-softmax-text", "double-softmax", measure=least_loss, margin=0.5, also=("plateau",))
def softmax_text(seed: int, mended: bool) -> Task:
    parts, symbols = data.text(seed)
    model = transformer(symbols)
    return Task(
        model=model if mended else nn.Sequential(model, nn.Softmax(-1)), loss="cross_entropy",
        batch_size=16, epochs=5, optimizer="adam(lr=5e-3)", **parts.parts(),
    )  # fmt: skip


@case("sigmoid-twice", "wrong-output-activation", "double-softmax", measure=least_loss, margin=0.15)
def sigmoid_twice(seed: int, mended: bool) -> Task:
    """A sigmoid before a loss that holds one."""
    return Task(
        model=mlp(30, 16, 1, head=None if mended else nn.Sigmoid), loss=nn.BCEWithLogitsLoss(),
        batch_size=32, epochs=10, optimizer=partial(Adam, lr=5e-3),
        **data.binary(data.loaded("breast_cancer", seed)).parts(),
    )  # fmt: skip


@case("relu-head", "wrong-output-activation", "dead-units", margin=0.2, measure=explained(),
      also=("plateau",))  # fmt: skip
def relu_head(seed: int, mended: bool) -> Task:
    """Standardised targets, half of them negative, by a head that cannot be."""
    return Task(
        model=mlp(9, 32, 1, head=None if mended else nn.ReLU), loss="mse", batch_size=32, epochs=20,
        optimizer=partial(Adam, lr=5e-3), **data.friedman(seed).parts(),
    )  # fmt: skip


@case("tanh-head", "wrong-output-activation", margin=0.3, measure=explained(),
      also=("saturated-units", "unscaled-targets"))  # fmt: skip
def tanh_head(seed: int, mended: bool) -> Task:
    parts = data.friedman(seed).mapped(y=lambda y: 3 * y)
    return Task(
        model=mlp(9, 32, 1, head=None if mended else nn.Tanh), loss=nn.HuberLoss(), batch_size=32,
        epochs=20, optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip


@case("mse-on-labels", "wrong-loss", margin=0.2, also=("wrong-output-activation", "underfitting"))
def mse_on_labels(seed: int, mended: bool) -> Task:
    """Class labels as numbers, told from ten outputs by their distance to the number."""

    def distance(output: Tensor, target: Tensor) -> Tensor:
        return (output - target[:, None]).square().mean()

    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY if mended else distance, batch_size=64, epochs=8,
        optimizer=partial(Adam, lr=2e-3), **data.digits(seed).parts(),
    )  # fmt: skip


def rounded(program: Program) -> float:
    """Share of labels that are hit, by argmax or by the number nearest to the output."""
    output, target = program.outputs("valid")
    told = output.argmax(-1) if output.shape[-1] > 1 else output.flatten().round()
    return float((told == target.flatten()).float().mean())


@case("one-number-for-ten-classes", "wrong-loss", "wrong-output-activation", margin=0.3,
      measure=rounded, also=("unscaled-targets", "model-too-small"))  # fmt: skip
def one_number(seed: int, mended: bool) -> Task:
    parts = data.digits(seed)
    if not mended:
        parts = parts.mapped(y=lambda y: y.float()[:, None])
    return Task(
        model=mlp(64, 64, 10 if mended else 1), loss=CROSS_ENTROPY if mended else nn.MSELoss(),
        batch_size=64, epochs=8, optimizer=partial(Adam, lr=2e-3), **parts.parts(),
    )  # fmt: skip


@case("broadcast-mse", "wrong-loss", margin=0.3, measure=explained(),
      also=("plateau", "underfitting", "unlearnable-data"),
      unsure="the shapes (N, 1) and (N,) broadcast: a wrong loss by accident")  # fmt: skip
def broadcast(seed: int, mended: bool) -> Task:
    parts = data.friedman(seed)
    if not mended:
        parts = parts.mapped(y=lambda y: y.flatten())

    def squared(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    return Task(
        model=mlp(9, 32, 1), loss=squared, batch_size=32, epochs=15, optimizer=partial(Adam, lr=5e-3),
        **parts.parts(),
    )  # fmt: skip


@case(
    "dropout-after-the-head",
    "dropout-misplaced",
    measure=least_loss,
    margin=0.5,
    also=("over-regularised",),
)
def dropout_last(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 32, 10, head=None if mended else partial(nn.Dropout, 0.8)), loss=CROSS_ENTROPY,
        batch_size=64, epochs=5, optimizer=partial(Adam, lr=1e-3), **data.digits(seed).parts(),
    )  # fmt: skip


@case("dropout-on-the-output", "dropout-misplaced", margin=0.1, measure=explained(),
      also=("over-regularised", "train-valid-mismatch"))  # fmt: skip
def dropout_regression(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(9, 32, 1, head=None if mended else partial(nn.Dropout, 0.5)), loss="mse",
        batch_size=32, epochs=15, optimizer=partial(Adam, lr=5e-3), **data.friedman(seed).parts(),
    )  # fmt: skip


@case("dropout-before-the-head-of-three", "dropout-misplaced", "over-regularised", margin=0.3,
      measure=least_loss, also=("underfitting", "noise-floor"))  # fmt: skip
def dropout_narrow(seed: int, mended: bool) -> Task:
    model = nn.Sequential(
        nn.Linear(13, 8), nn.ReLU(), nn.Linear(8, 3), nn.Dropout(0.0 if mended else 0.9)
    )
    return Task(
        model=model, loss=CROSS_ENTROPY, optimizer=partial(Adam, lr=3e-3), batch_size=16, epochs=20,
        **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@case("wrong-loss-mae-on-rare-events", "wrong-loss", margin=0.1, measure=explained("train"),
      also=("plateau", "underfitting", "dead-units"))  # fmt: skip
def rare_events(seed: int, mended: bool) -> Task:
    """Nine targets of ten are 0: the best constant of an absolute loss is 0, and it stays there."""
    X, y = data.sums(seed, length=5, symbols=10).train
    y = (X.sum(1) > 31).float()[:, None]
    return Task(
        model=Recurrent(10, 1, 8, "GRU"), loss="mse" if mended else nn.L1Loss(), train=(X, y),
        batch_size=32, epochs=15, optimizer=partial(Adam, lr=5e-3),
    )  # fmt: skip
