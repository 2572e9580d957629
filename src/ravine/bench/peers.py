"""Who else can make the same step: torch's three ways, and the packages that are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

Weights = list[torch.nn.Parameter]
Step = Callable[[], object]

TORCH_WAYS = ("default", "foreach", "fused")
# Packages with optimizers of torch's interface; class names differ in capitals at most.
PACKAGES = ("heavyball", "pytorch_optimizer")


class Unable(Exception):  # noqa: N818 (a fact about a peer, not a failure)
    """A peer has not got what is timed, or cannot run it here; the text says why."""

    @classmethod
    def because(cls, error: Exception) -> Unable:
        """Return what a peer's own error says, in one line."""
        text = (str(error).splitlines() or [""])[0][:120]
        return cls(f"{type(error).__name__}: {text}")


def peers(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[Weights], Step]]]:
    """Yield what can be tried for a rule: the peer's name, and what makes its step over weights.

    Making or running the step raises whatever the peer raises where it cannot; see `tried`.

    Args:
        name: the class in torch.optim and the packages.
        options: its hyperparameters by torch's names; ``clip_norm`` becomes a call of
            ``torch.nn.utils.clip_grad_norm_`` before the step.
    """
    plain = {key: value for key, value in options.items() if key != "clip_norm"}
    clip = options.get("clip_norm")
    for way in TORCH_WAYS:
        extra = {} if way == "default" else {way: True}
        made = _maker(lambda: torch.optim, name, {**plain, **extra}, clip)
        yield f"torch {way}", made
    for package in PACKAGES:
        yield package, _maker(partial(importlib.import_module, package), name, plain, clip)


def _maker(
    module: Callable[[], Any], name: str, options: Mapping[str, Any], clip: float | None
) -> Callable[[Weights], Step]:
    def make(weights: Weights) -> Step:
        try:
            found = module()
        except ImportError as error:
            raise Unable("not installed") from error
        by_name = {key.lower(): key for key in vars(found)}
        if name.lower() not in by_name:
            raise Unable("has no such rule")
        optimizer = getattr(found, by_name[name.lower()])(weights, **options)
        if clip is None:
            return optimizer.step  # type: ignore[no-any-return]

        def clipped() -> None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
            optimizer.step()

        return clipped

    return make


def tried(make: Callable[[Weights], Step], weights: Weights) -> Step:
    """Return the step of a peer that has been seen to move the weights, twice.

    A peer that takes the gradients away (HeavyBall) gets them back before each step, which costs
    it what setting an attribute costs.

    Raises:
        Unable: with the reason, whatever the peer has raised.
    """
    gradients = [weight.grad for weight in weights]
    try:
        step = make(weights)
        step()
        if any(weight.grad is None for weight in weights):
            step = _restoring(step, weights, gradients)
        before = [weight.detach().clone() for weight in weights]
        step()
    except Unable:
        raise
    except Exception as error:  # other people's code may raise anything
        raise Unable.because(error) from error
    if any(torch.equal(old, weight) for old, weight in zip(before, weights, strict=True)):
        raise Unable("a second step with the same gradients left a weight as it was")
    return step


def _restoring(step: Step, weights: Weights, gradients: list[Any]) -> Step:
    def restored() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        step()

    return restored
