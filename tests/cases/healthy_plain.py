"""Healthy programs of common kinds: each architecture, loss and optimizer as it is meant."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from cases import data
from cases.healthy import healthy
from cases.measures import accuracy, explained, least_loss
from cases.models import Pooled, Recurrent, cnn, mlp, transformer
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


@healthy("digits-mlp", least=0.93)
def digits_mlp(seed: int) -> Task:
    return Task(
        model=mlp(64, 64, 32, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=15, metrics=["accuracy"],
        optimizer=partial(Adam, lr=2e-3), **data.digits(seed).parts(),
    )  # fmt: skip


@healthy("digits-cnn", least=0.93)
def digits_cnn(seed: int) -> Task:
    return Task(
        model=cnn(), loss=CROSS_ENTROPY, batch_size=64, epochs=10,
        optimizer=partial(Adam, lr=3e-3), **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@healthy("digits-cnn-batch-norm", least=0.95)
def batch_norm(seed: int) -> Task:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=64, epochs=6, optimizer=partial(Adam, lr=3e-3),
        **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@healthy("wine-softmax", least=0.9)
def wine(seed: int) -> Task:
    return Task(
        model=nn.Linear(13, 3), loss="cross_entropy", batch_size=16, epochs=40,
        optimizer="adam(lr=1e-2)", **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@healthy("iris-tanh", least=0.86)
def iris(seed: int) -> Task:
    return Task(
        model=mlp(4, 16, 3, activation=nn.Tanh), loss=CROSS_ENTROPY, batch_size=16, epochs=40,
        optimizer=partial(Adam, lr=1e-2), **data.loaded("iris", seed).parts(),
    )  # fmt: skip


@healthy("cancer-logistic", least=0.94)
def cancer(seed: int) -> Task:
    return Task(
        model=nn.Linear(30, 1), loss=nn.BCEWithLogitsLoss(), batch_size=32, epochs=25,
        optimizer=partial(Adam, lr=1e-2, weight_decay=1e-3),
        **data.binary(data.loaded("breast_cancer", seed)).parts(),
    )  # fmt: skip


@healthy(
    "cancer-sigmoid-bce",
    least=0.94,
    measure=accuracy(threshold=0.5),
    looks_like="wrong-output-activation",
)
def probabilities(seed: int) -> Task:
    """Probabilities and the loss that takes them."""
    return Task(
        model=mlp(30, 16, 1, head=nn.Sigmoid), loss=nn.BCELoss(), batch_size=32, epochs=8,
        optimizer=partial(Adam, lr=5e-3), **data.binary(data.loaded("breast_cancer", seed)).parts(),
    )  # fmt: skip


@healthy("cancer-linear-svm", least=0.93)
def svm(seed: int) -> Task:
    parts = data.binary(data.loaded("breast_cancer", seed)).mapped(y=lambda y: 2 * y - 1)
    return Task(
        model=nn.Linear(30, 1), loss="hinge", batch_size=32, epochs=25, optimizer="adam(lr=1e-2, l2=1e-2)",
        **parts.parts(),
    )  # fmt: skip


@healthy("wine-log-softmax-nll", least=0.9, looks_like="double-softmax")
def log_softmax(seed: int) -> Task:
    return Task(
        model=mlp(13, 16, 3, head=partial(nn.LogSoftmax, -1)), loss=nn.NLLLoss(), batch_size=16,
        epochs=25, optimizer=partial(Adam, lr=5e-3), **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@healthy("wine-softmax-log-nll", least=0.9, looks_like="double-softmax")
def softmax_nll(seed: int) -> Task:
    """A softmax head and a loss of its logarithm: one softmax in all."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.nll_loss(output.clamp_min(1e-8).log(), target)

    return Task(
        model=mlp(13, 16, 3, head=partial(nn.Softmax, -1)), loss=loss, batch_size=16, epochs=25,
        optimizer=partial(Adam, lr=5e-3), **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@healthy("diabetes-linear", least=0.25, measure=explained(), looks_like="missing-nonlinearity")
def diabetes(seed: int) -> Task:
    return Task(
        model=nn.Linear(10, 1), loss="mse", batch_size=32, epochs=30, optimizer="adam(lr=1e-2)",
        **data.loaded("diabetes", seed).parts(),
    )  # fmt: skip


@healthy("diabetes-mlp", least=0.25, measure=explained())
def diabetes_mlp(seed: int) -> Task:
    return Task(
        model=mlp(10, 16, 1), loss=nn.MSELoss(), batch_size=32, epochs=8,
        optimizer=partial(AdamW, lr=5e-3, weight_decay=0.01), **data.loaded("diabetes", seed).parts(),
    )  # fmt: skip


@healthy("friedman-huber", least=0.7, measure=explained())
def friedman(seed: int) -> Task:
    return Task(
        model=mlp(9, 32, 32, 1), loss="huber(delta=1)", batch_size=32, epochs=15,
        optimizer=partial(RMSprop, lr=2e-3), **data.friedman(seed, 1000).parts(),
    )  # fmt: skip


@healthy("moons-sgd-one-cycle", least=0.93)
def moons(seed: int) -> Task:
    return Task(
        model=mlp(2, 32, 2), loss=CROSS_ENTROPY, batch_size=30, epochs=15,
        optimizer=partial(SGD, lr=0.1, momentum=0.9),
        scheduler=partial(OneCycleLR, max_lr=0.1, total_steps=300), scheduler_interval="step",
        **data.moons(seed, 1000).parts(),
    )  # fmt: skip


@healthy("blobs-cosine-to-zero", least=0.9, looks_like="lr-too-low")
def blobs(seed: int) -> Task:
    """The rate ends at 0: the last epochs change nothing, as they are meant to."""
    return Task(
        model=mlp(2, 24, 3), loss=CROSS_ENTROPY, batch_size=32, epochs=25,
        optimizer=partial(Adam, lr=1e-2), scheduler=partial(CosineAnnealingLR, T_max=25),
        **data.blobs(seed, centers=[[0, 0], [4, 0], [0, 4]]).parts(),
    )  # fmt: skip


@healthy("text-transformer", least=-2.75, measure=least_loss)
def text(seed: int) -> Task:
    parts, symbols = data.text(seed)
    return Task(
        model=transformer(symbols), loss="cross_entropy", batch_size=16, epochs=6,
        optimizer="adamw(lr=4e-3, weight_decay=0.1, clip_norm=1)", **parts.parts(),
    )  # fmt: skip


@healthy("sequences-transformer", least=0.85)
def sequence_transformer(seed: int) -> Task:
    return Task(
        model=Pooled(12, 2, 6), loss="cross_entropy", batch_size=32, epochs=6,
        optimizer=partial(Adam, lr=2.5e-3), **data.sums(seed, 1500, symbols=12).parts(),
    )  # fmt: skip


@healthy("sums-lstm", least=0.88)
def lstm(seed: int) -> Task:
    return Task(
        model=Recurrent(12, 2, 16, "LSTM"), loss="cross_entropy", batch_size=32, epochs=5,
        optimizer=partial(Adam, lr=1e-2), **data.sums(seed, 1500, symbols=12).parts(),
    )  # fmt: skip


@healthy("sums-gru", least=0.88)
def gru(seed: int) -> Task:
    return Task(
        model=Recurrent(12, 2, 16, "GRU"), loss=nn.CrossEntropyLoss(), batch_size=32, epochs=5,
        optimizer="adam(lr=1e-2, clip_norm=1)", **data.sums(seed, 1500, symbols=12).parts(),
    )  # fmt: skip


@healthy("autoencoder", least=0.5, measure=explained())
def autoencoder(seed: int) -> Task:
    """Targets are the inputs: no leak, a reconstruction through six units."""
    parts = data.digits(seed)
    train, valid = ((X, X) for X, _ in (parts.train, parts.valid))
    return Task(
        model=mlp(64, 48, 6, 48, 64, activation=nn.GELU), loss="mse", train=train, valid=valid,
        batch_size=32, epochs=15, optimizer=partial(Adam, lr=3e-3),
    )  # fmt: skip
