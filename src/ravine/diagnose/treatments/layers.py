"""Remedies of the layers: activations, normalisation, shortcuts and width. All in place."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.probes.run import layers_of
from ravine.diagnose.program import Change
from ravine.diagnose.treatments.model import HE, last_weighted

DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _hidden(model: nn.Module) -> Iterator[nn.Module]:
    layers = list(layers_of(model))
    modules = dict(model.named_modules())
    for name in layers[:-1]:
        if isinstance(modules[name], DENSE):
            yield modules[name]


def _relu_after(model: nn.Module) -> None:
    for module in _hidden(model):
        module.register_forward_hook(lambda module, args, output: torch.relu(output))


INSERT_RELU = Change("put a ReLU after each hidden layer", model=_relu_after)


def _hidden_layer(model: nn.Module) -> nn.Module:
    """Put a layer before the last one that has weights, if that is linear."""
    if isinstance(model, nn.Linear):
        return _two_layers(model)
    found = last_weighted(model)
    if found is not None:
        parent, key, last = found
        if isinstance(last, nn.Linear):
            parent._modules[key] = _two_layers(last)
    return model


def _two_layers(last: nn.Linear) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(last.in_features, 64), nn.ReLU(),
        nn.Linear(64, last.out_features, bias=last.bias is not None),
    ).to(last.weight)  # fmt: skip


HIDDEN = Change("put a hidden layer of 64 ReLU before the last layer", model=_hidden_layer)


def _shortcuts(model: nn.Module) -> None:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + args[0] if output.shape == args[0].shape else output

    for module in _hidden(model):
        module.register_forward_hook(hook)


SHORTCUTS = Change("add each hidden layer's input to its output", model=_shortcuts)


def _normalised(model: nn.Module) -> None:
    hidden = {id(module) for module in _hidden(model)}
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if id(child) in hidden:
                assert child is not None
                parent._modules[key] = nn.Sequential(child, _norm(child))


def _norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return nn.BatchNorm2d(layer.out_channels)
    if isinstance(layer, (nn.Conv1d, nn.Conv3d)):
        kind = nn.BatchNorm1d if isinstance(layer, nn.Conv1d) else nn.BatchNorm3d
        return kind(layer.out_channels)
    assert isinstance(layer, nn.Linear)
    return nn.LayerNorm(layer.out_features)  # for rows and sequences, and for batches of one


NORMALISE = Change("normalise the output of each hidden layer", model=_normalised)


@cache
def mask_non_finite(name: str) -> Change:
    """Return a change that lets nothing through a module that is not finite, forward or backward."""

    def change(model: nn.Module) -> None:
        module = dict(model.named_modules()).get(name)
        if module is None:
            return

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(_masked(arg) if isinstance(arg, Tensor) else arg for arg in args)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return _finite(output) if isinstance(output, Tensor) else output

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    return Change(f"replace what is not finite in {name or 'the model'}", model=change)


def _masked(tensor: Tensor) -> Tensor:
    if tensor.requires_grad:
        tensor = tensor.view_as(tensor)
        tensor.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))  # type: ignore[no-untyped-call]
    return tensor


def _finite(output: Tensor) -> Tensor:
    good = torch.isfinite(output)
    kept = output.detach()[good]
    most = float(kept.abs().max()) if len(kept) else 0.0
    return torch.where(good, output, output.detach().nan_to_num(0.0, most, -most))


@cache
def widen(factor: int) -> Change:
    """Return all hidden widths times a factor, with weights drawn anew."""

    def change(model: nn.Module) -> None:
        layers = list(layers_of(model))
        for name, module in model.named_modules():
            _wider(module, factor, name == layers[0], name == layers[-1])
        assert HE.model is not None
        HE.model(model)

    return Change(f"make the hidden layers {factor} times as wide", model=change)


def _wider(module: nn.Module, factor: int, first: bool, last: bool) -> None:
    """Make a module again in place, with more inputs unless first and more outputs unless last."""
    inside, outside = 1 if first else factor, 1 if last else factor
    if isinstance(module, nn.Linear):
        nn.Linear.__init__(
            module, inside * module.in_features, outside * module.out_features,
            bias=module.bias is not None, dtype=module.weight.dtype, device=module.weight.device,
        )  # fmt: skip
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        type(module).__init__(
            module, inside * module.in_channels, outside * module.out_channels,  # type: ignore[arg-type]
            module.kernel_size, stride=module.stride, padding=module.padding,  # type: ignore[arg-type]
            dilation=module.dilation, groups=module.groups, bias=module.bias is not None,  # type: ignore[arg-type]
        )  # fmt: skip
    elif isinstance(module, nn.Embedding):
        nn.Embedding.__init__(module, module.num_embeddings, outside * module.embedding_dim)
    elif isinstance(module, nn.RNNBase):
        options: dict[str, Any] = {
            name: getattr(module, name)
            for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
        }
        if type(module) is nn.RNN:
            options["nonlinearity"] = module.nonlinearity
        kind: Any = type(module)
        kind.__init__(module, inside * module.input_size, outside * module.hidden_size, **options)
    elif isinstance(module, _NORMS):
        type(module).__init__(module, factor * module.num_features)
    elif isinstance(module, nn.LayerNorm):
        nn.LayerNorm.__init__(module, [factor * size for size in module.normalized_shape])
