"""Remedies of the first weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ravine.diagnose.program import Change


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


RESET = Change("initialise the weights anew (torch's own way)", model=_reset)


@torch.no_grad()
def _recurrent(model: nn.Module) -> None:
    for module in model.modules():
        if not isinstance(module, nn.RNNBase):
            continue
        for name, weight in module.named_parameters():
            if "weight_hh" in name:
                for gate in torch.split(weight, module.hidden_size):
                    _keeps_length(gate)


def _keeps_length(gate: Tensor) -> None:
    if gate.shape[0] == gate.shape[1]:
        nn.init.eye_(gate)
    else:
        nn.init.orthogonal_(gate)


RECURRENT = Change(
    "begin the recurrent weights as the identity: a state keeps its length", model=_recurrent
)


@torch.no_grad()
def _perturbed(model: nn.Module) -> None:
    for weight in model.parameters():
        if weight.requires_grad:
            width = weight[0].numel() if weight.ndim > 1 else 1
            weight.add_(0.3 * torch.randn_like(weight) / max(width, 1) ** 0.5)


PERTURB = Change("perturb the first weights by noise (0.3 / sqrt(fan in))", model=_perturbed)


@torch.no_grad()
def _drawn(model: nn.Module, far: float = 1.0) -> None:
    for weight in model.parameters():
        if weight.requires_grad:
            width = weight[0].numel() if weight.ndim > 1 else 1
            weight.copy_(far * torch.randn_like(weight) / max(width, 1) ** 0.5)


RESTART = Change("begin at other weights, drawn at random (1 / sqrt(fan in))", model=_drawn)
RESTART_FAR = Change(
    "begin at other weights, drawn at random (3 / sqrt(fan in))", model=partial(_drawn, far=3.0)
)
