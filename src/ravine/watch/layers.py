"""Hooks that look at activations and arriving gradients, and are gone between two looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from ravine.watch.seen import Units, read, saturation

_RELUS = (nn.ReLU, nn.ReLU6, nn.Threshold)
_BOUNDED = (nn.Sigmoid, nn.Tanh)

PROBED = 256
"""How many numbers of the probe's gradient are compared."""


class Layers:
    """What is measured while a batch goes through the model.

    Args:
        model: looked at only while hooks are attached. One that torch has compiled is not looked
            at: hooks that come and go would have it compiled anew.

    Attributes:
        units: by layer of ReLUs, which were ever above zero.
        rows: how many rows a layer has seen.
        arrived: the `beginning` of the gradients that reached the probe since `attach`, added up;
            None for none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.units: dict[str, Units] = {}
        self._saturated: dict[str, Tensor] = {}
        self.rows = 0
        self.arrived: Tensor | None = None
        compiled = any(
            module._compiled_call_impl is not None or hasattr(module, "_orig_mod")
            for module in model.modules()
        )
        self._named = [] if compiled else _looked_at(model)
        self._probed = not compiled
        self._handles: list[Any] = []

    def attach(self, probe: nn.Parameter | None) -> None:
        """Look at the batches from here on; at the gradient of one weight too."""
        self.detach()
        self.arrived = None
        self._saturated.clear()
        for name, module in self._named:
            self._handles.append(module.register_forward_hook(_Look(self, name)))
        if probe is not None and self._probed:
            self._handles.append(probe.register_hook(self._arrives))  # type: ignore[no-untyped-call]

    def detach(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def dead(self) -> dict[str, float]:
        """Return the share of units, by layer, that were never above zero."""
        known = {name: (u, u.peak) for name, u in self.units.items() if u.peak is not None}
        asked = {name: peak for name, (units, peak) in known.items() if not units.alive}
        counts = read([(peak <= 0).sum() for peak in asked.values()])
        shares = dict.fromkeys(known, 0.0)
        for (name, peak), count in zip(asked.items(), counts, strict=True):
            shares[name] = count / len(peak)
            self.units[name].alive = count == 0
        return shares

    def saturated(self) -> dict[str, float]:
        """Return the share of pre-activations at the bounds, by layer, in this look."""
        return dict(zip(self._saturated, read(list(self._saturated.values())), strict=True))

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Look at what a layer just computed."""
        if not (module.training and isinstance(output, Tensor) and output.ndim >= 2):
            return
        if isinstance(module, _BOUNDED):
            self._saturated[name] = saturation(inputs[0])
        else:
            units = self.units.setdefault(name, Units())
            units.add(output)
            self.rows = max(self.rows, units.rows)

    def _arrives(self, gradient: Tensor) -> None:
        here = beginning(gradient)
        self.arrived = here.clone() if self.arrived is None else self.arrived + here


def beginning(gradient: Tensor) -> Tensor:
    """Return what is looked at of the probe's gradient."""
    return gradient.detach().flatten()[:PROBED]


class _Look:
    """A forward hook; copies and files of the model have one in its place that does nothing."""

    def __init__(self, layers: Layers, name: str) -> None:
        self._layers, self._name = layers, name

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._layers.see(self._name, module, inputs, output)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _blind, ()


def _blind() -> Callable[..., None]:
    return _no_look


def _no_look(*arguments: Any) -> None:
    """See nothing."""


def _looked_at(model: nn.Module) -> list[tuple[str, nn.Module]]:
    named: Iterable[tuple[str, nn.Module]] = model.named_modules()
    return [(name, module) for name, module in named if isinstance(module, _RELUS + _BOUNDED)]
