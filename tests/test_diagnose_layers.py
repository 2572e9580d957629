"""Gradients by layer, units and numbers that are not finite: probes and checks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from layer_programs import evidence, mlp, names, one_thread  # noqa: F401 (a fixture)
from torch import Tensor, nn
from torch.nn import functional

from ravine.diagnose.checks.layers import layer_checks
from ravine.diagnose.probes.non_finite import non_finite
from ravine.diagnose.probes.run import gradient_norms, run
from ravine.diagnose.probes.through_time import through_time
from ravine.diagnose.probes.units import look


def test_norms_by_layer_against_a_loop() -> None:
    seen = evidence(lambda: mlp(2, 8, 8, 2))
    first = seen.probe(run).gradients[0]
    fresh = seen.fresh()
    X, y = next(iter(fresh.train.epoch(1)))
    fresh.loss(fresh.model(X), y).backward()
    naive = {
        name.removesuffix(".weight"): float(p.grad.square().sum().sqrt())
        for name, p in fresh.model.named_parameters()
        if name.endswith("weight") and p.grad is not None
    }
    assert first.step == 1
    assert first.norms == pytest.approx(naive)
    assert gradient_norms(fresh.model) == pytest.approx(naive)


def test_the_run_is_the_replay() -> None:
    seen = evidence(lambda: mlp(2, 8, 2))
    kept = seen.probe(run).trace
    assert seen.replayed() is kept
    again = evidence(lambda: mlp(2, 8, 2))
    assert again.replayed().losses == kept.losses
    state = seen.probe(run).states
    assert state[0][0] == 1
    for name, value in seen.fresh().model.state_dict().items():
        assert torch.equal(state[0][1][name], value)


class ByFunctions(nn.Module):
    """ReLU and tanh as functions, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        return torch.tanh(self.two(functional.relu(h, inplace=True)))


def test_dead_and_flat_against_a_loop() -> None:
    torch.manual_seed(0)
    model = ByFunctions()
    with torch.no_grad():
        model.one.bias.copy_(torch.tensor([-99.0, 0.0, 99.0, -99.0]))
        model.two.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
        model.two.weight.mul_(0.01)
    X = torch.randn(64, 2)
    seen = look(model, X)
    relu, tanh = seen.activations
    hidden = model.one(X).relu()
    assert relu.dead == 0.5
    assert relu.flat == pytest.approx(float((hidden == 0).float().mean()))
    slopes = 1 - torch.tanh(model.two(hidden)).square()
    assert tanh.flat == pytest.approx(float((slopes < 0.027).float().mean()))
    assert (relu.kind, relu.head, tanh.kind, tanh.head) == ("relu", False, "tanh", True)
    assert not model._forward_hooks
    assert not model.one._forward_pre_hooks


def test_the_channels_of_images_are_units() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-99.0, 9.0, 9.0, 9.0]))
    (relu,) = look(model, torch.randn(16, 1, 8, 8)).activations
    assert (relu.units, relu.dead, relu.module) == (4, 0.25, "1")


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().log()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.relu().sum(-1, keepdim=True).mul(0).sqrt()


@pytest.mark.parametrize(
    ("module", "way", "kind"), [(Log, "forward", "Log"), (Root, "backward", "Root")]
)
def test_the_first_bad_module_is_named(module: type[nn.Module], way: str, kind: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), module(), nn.Linear(8, 2))

    found = evidence(make).probe(non_finite)
    assert found is not None
    assert (found.step, found.way, found.module, found.kind) == (1, way, "3", kind)


def test_a_bad_weight_and_a_later_step_are_named() -> None:
    def make() -> nn.Module:
        model = mlp(2, 8, 2)
        with torch.no_grad():
            model[2].weight[0, 0] = float("nan")
        return model

    found = evidence(make).probe(non_finite)
    assert found is not None
    assert (found.way, found.module) == ("weight", "2.weight")
    diverging = evidence(
        lambda: mlp(2, 8, 8, 1), loss="mse", optimizer=partial(torch.optim.SGD, lr=50.0),
        train=(torch.randn(64, 2), torch.randn(64, 1)), epochs=20,
    )  # fmt: skip
    later = diverging.probe(non_finite)
    assert later is not None
    assert later.step > 1


def test_a_finite_run_has_no_bad_module() -> None:
    assert evidence(lambda: mlp(2, 8, 2)).probe(non_finite) is None


class Recurrent(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.recurrent = nn.RNN(2, 8, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            self.recurrent.weight_hh_l0.copy_(factor * torch.eye(8))
            self.recurrent.weight_ih_l0.abs_()
            self.recurrent.bias_ih_l0.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.recurrent(x)[0][:, -1])
        return out


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_through_time_against_the_power_of_the_weight(factor: float) -> None:
    X = torch.rand(64, 11, 2)  # all units on: the Jacobian of a step is factor * identity
    seen = evidence(lambda: Recurrent(factor), train=(X, torch.arange(64) % 2))
    assert seen.probe(through_time)["recurrent"] == pytest.approx(factor**10, rel=1e-4)


FAULTS = {
    "vanishing-gradient": lambda: mlp(2, *[8] * 7, 2, activation=nn.Sigmoid),
    "dead-units": lambda: biased(mlp(2, 16, 2), -20.0),
    "saturated-units": lambda: biased(mlp(2, 16, 2, activation=nn.Tanh), 20.0),
    "exploding-gradient": lambda: scaled(mlp(2, *[16] * 7, 2), 8.0),
}


def biased(model: nn.Sequential, value: float) -> nn.Sequential:
    nn.init.constant_(model[0].bias, value)
    return model


def scaled(model: nn.Sequential, factor: float) -> nn.Sequential:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(factor)
    return model


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_suspected_and_its_healthy_twin_is_not(name: str) -> None:
    found = names(layer_checks(evidence(FAULTS[name])))
    assert name in found
    assert found[name].remedies
    assert not found[name].certain  # a replay has to show it
    healthy = names(layer_checks(evidence(lambda: mlp(2, 16, 16, 2))))
    assert not healthy


def test_non_finite_is_certain_and_says_where() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), Log(), nn.Linear(8, 2))

    found = names(layer_checks(evidence(make)))["non-finite"]
    assert found.certain
    assert found.finding.where == "1"
    assert found.finding.says == "step 1 is not finite: 1 (Log) made it of finite inputs"
