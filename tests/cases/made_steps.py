"""Made faults of the step: what the optimizer holds, clears, moves, and by how much."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from cases import data
from cases.case import case
from cases.measures import explained, least_loss
from cases.models import Recurrent, cnn, mlp, transformer
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


@case("lr-too-high-cnn", "lr-too-high", margin=0.3, also=("dead-units", "exploding-gradient"))
def high_cnn(seed: int, mended: bool) -> Task:
    return Task(
        model=cnn(), loss=CROSS_ENTROPY, batch_size=64, epochs=5,
        optimizer=partial(SGD, lr=0.05 if mended else 3.0), **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@case(
    "lr-too-high-oscillation", "lr-too-high", margin=0.02, measure=explained("train"),
    also=("noise-floor", "batch-too-small", "exploding-gradient", "non-finite"),
)  # fmt: skip
def oscillation(seed: int, mended: bool) -> Task:
    parts = data.loaded("diabetes", seed)
    return Task(
        model=mlp(10, 16, 1, activation=nn.Tanh), loss="mse", batch_size=32, epochs=20,
        optimizer=partial(SGD, lr=0.02 if mended else 0.5, momentum=0.9), **parts.parts(),
    )  # fmt: skip


def letters(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of logits with the classes last."""
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


@case("lr-too-high-transformer", "lr-too-high", margin=0.3, measure=least_loss, also=("plateau",))
def high_transformer(seed: int, mended: bool) -> Task:
    parts, symbols = data.text(seed)
    return Task(
        model=transformer(symbols), loss=letters, batch_size=16, epochs=5,
        optimizer=partial(AdamW, lr=5e-3 if mended else 1.0), **parts.parts(),
    )  # fmt: skip


@case("lr-too-low-mlp", "lr-too-low", "too-few-epochs", margin=0.3, also=("underfitting",))
def low(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=8,
        optimizer=partial(Adam, lr=1e-3 if mended else 3e-6), **data.digits(seed).parts(),
    )  # fmt: skip


@case("lr-too-low-transformer", "lr-too-low", "too-few-epochs", margin=0.5, measure=least_loss,
      also=("underfitting",))  # fmt: skip
def low_transformer(seed: int, mended: bool) -> Task:
    parts, symbols = data.text(seed)
    return Task(
        model=transformer(symbols), loss="cross_entropy", batch_size=16, epochs=5,
        optimizer="adamw(lr=5e-3)" if mended else "adamw(lr=1e-6)", **parts.parts(),
    )  # fmt: skip


@case("lr-decays-too-soon", "lr-too-low", "too-few-epochs", margin=0.2, also=("underfitting",))
def decays(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=8,
        optimizer=partial(SGD, lr=0.05),
        scheduler=partial(ExponentialLR, gamma=0.999 if mended else 0.7), scheduler_interval="step",
        **data.digits(seed).parts(),
    )  # fmt: skip


@case("too-few-epochs-cnn", "too-few-epochs", "lr-too-low", margin=0.05, also=("underfitting",))
def few_epochs(seed: int, mended: bool) -> Task:
    return Task(
        model=cnn(), loss=CROSS_ENTROPY, batch_size=64, epochs=8 if mended else 1,
        optimizer=partial(Adam, lr=2e-3), **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@case("frozen-backbone-unwilling", "frozen-parameters", margin=0.2, also=("underfitting",))
def frozen(seed: int, mended: bool) -> Task:
    """All but the last layer frozen at random weights, and given to the optimizer all the same."""
    model = mlp(2, 2, 32, 32, 2, activation=nn.Tanh)
    for weight in list(model.parameters())[:-2]:
        weight.requires_grad_(mended)
    return Task(
        model=model, loss=CROSS_ENTROPY, optimizer=partial(Adam, lr=0.02), batch_size=32, epochs=20,
        **data.circles(seed).parts(),
    )  # fmt: skip


@case("frozen-embedding", "frozen-parameters", margin=0.02, unsure="a random embedding is usable")
def frozen_embedding(seed: int, mended: bool) -> Task:
    model = Recurrent(30, 2, 8, "GRU")
    model.symbol.requires_grad_(mended)
    with torch.no_grad():
        model.symbol.weight.mul_(0.1)
    return Task(
        model=model, loss="cross_entropy", optimizer=partial(Adam, lr=0.01), batch_size=32, epochs=10,
        **data.sums(seed, symbols=30).parts(),
    )  # fmt: skip


@case(
    "optimizer-misses-backbone", "optimizer-misses-parameters", margin=0.2, also=("underfitting",)
)
def misses(seed: int, mended: bool) -> Task:
    def last_layer(params: Any) -> Any:
        return Adam(list(params)[0 if mended else -2 :], lr=0.02)

    return Task(
        model=mlp(2, 2, 32, 32, 2, activation=nn.Tanh), loss=CROSS_ENTROPY, optimizer=last_layer,
        batch_size=32, epochs=20, **data.circles(seed).parts(),
    )  # fmt: skip


class Listed(nn.Module):
    """Layers in a plain list are no submodules: ``parameters()`` does not know them."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        layers = [nn.Linear(2, 2), nn.Linear(2, 24), nn.Linear(24, 24)]
        self.layers = nn.ModuleList(layers) if registered else layers
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        output: Tensor = self.head(x)
        return output


@case("layers-in-a-list", "optimizer-misses-parameters", margin=0.15, also=("underfitting",),
      unsure="the weights are no parameters of the model: only the graph of the loss shows them")  # fmt: skip
def listed(seed: int, mended: bool) -> Task:
    return Task(
        model=Listed(mended), loss=CROSS_ENTROPY, optimizer=partial(Adam, lr=0.02), batch_size=32,
        epochs=20, **data.circles(seed).parts(),
    )  # fmt: skip


class Keeps(SGD):
    """Never clears the gradients."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass


@case("zero-grad-missing-sgd", "missing-zero-grad", margin=0.1,
      also=("lr-too-high", "exploding-gradient", "noise-floor"))  # fmt: skip
def keeps(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 32, 10), loss=CROSS_ENTROPY, batch_size=32, epochs=8,
        optimizer=partial(SGD if mended else Keeps, lr=0.05), **data.digits(seed).parts(),
    )  # fmt: skip


def keeping_adam(params: Any) -> Any:
    optimizer = Adam(params, lr=0.01)
    optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
    return optimizer


@case("zero-grad-missing-adam", "missing-zero-grad", margin=0.01, measure=explained("train"),
      also=("exploding-gradient", "lr-too-high", "noise-floor"))  # fmt: skip
def keeps_adam(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(9, 32, 1), loss="mse", batch_size=32, epochs=20,
        optimizer=partial(Adam, lr=0.01) if mended else keeping_adam, **data.friedman(seed).parts(),
    )  # fmt: skip


@case("sign-maximize", "gradient-sign-flipped", margin=0.3,
      also=("exploding-gradient", "lr-too-high", "non-finite"))  # fmt: skip
def maximize(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 32, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=6,
        optimizer=partial(SGD, lr=0.05, maximize=not mended), **data.digits(seed).parts(),
    )  # fmt: skip


def negated(output: Tensor, target: Tensor) -> Tensor:
    """The likelihood where its logarithm's negative is meant."""
    return output.log_softmax(-1).gather(-1, target[:, None]).mean()


@case("sign-negated-loss", "gradient-sign-flipped", "wrong-loss", margin=0.3,
      also=("exploding-gradient", "lr-too-high", "non-finite"),
      unsure="the loss falls as it is written: only what it measures is upside down")  # fmt: skip
def negated_loss(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(13, 16, 3), loss=CROSS_ENTROPY if mended else negated, batch_size=16, epochs=20,
        optimizer=partial(Adam, lr=0.01), **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@case("sign-hook", "gradient-sign-flipped", margin=0.5, measure=explained("train"),
      also=("exploding-gradient", "lr-too-high", "non-finite"))  # fmt: skip
def hooked(seed: int, mended: bool) -> Task:
    model = mlp(10, 16, 1, activation=nn.Tanh)
    if not mended:
        for weight in model.parameters():
            weight.register_hook(torch.neg)
    return Task(
        model=model, loss="mse", optimizer=partial(SGD, lr=0.05), batch_size=32, epochs=15,
        **data.loaded("diabetes", seed).parts(),
    )  # fmt: skip


class Idle(SGD):
    """A step that was overridden and forgot its parent's."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1


@case("step-overridden", "step-has-no-effect", margin=0.4)
def idle(seed: int, mended: bool) -> Task:
    return Task(
        model=cnn(), loss=CROSS_ENTROPY, batch_size=64, epochs=4,
        optimizer=partial(SGD if mended else Idle, lr=0.1), **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@case("step-of-lr-zero", "step-has-no-effect", "lr-too-low", margin=0.2)
def lr_zero(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(13, 16, 3), loss=CROSS_ENTROPY, batch_size=16, epochs=20,
        optimizer=partial(Adam, lr=0.01 if mended else 0.0), **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@case("step-scheduled-to-zero", "lr-too-low", "step-has-no-effect", "too-few-epochs", margin=0.1)
def scheduled_to_zero(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(13, 16, 3), loss=CROSS_ENTROPY, batch_size=16, epochs=20,
        optimizer=partial(Adam, lr=1e-3),
        scheduler=partial(StepLR, step_size=1, gamma=0.9 if mended else 0.001),
        **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@case("step-over-a-copy", "step-has-no-effect", "optimizer-misses-parameters", margin=0.3)
def over_a_copy(seed: int, mended: bool) -> Task:
    def copies(params: Any) -> Any:
        held = list(params)
        return Adam(
            held if mended else [w.detach().clone().requires_grad_() for w in held], lr=0.01
        )

    return Task(
        model=mlp(2, 32, 32, 2), loss=CROSS_ENTROPY, optimizer=copies, batch_size=32, epochs=15,
        **data.moons(seed).parts(),
    )  # fmt: skip
