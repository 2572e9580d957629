"""Where gradients lie, asked of PyTorch in one call: the answers are those of Python's calls, one by one."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import Parameter

from ravine import optim
from ravine.engine import gradient_addresses
from ravine.engine.gradient_addresses import CHANGED, OTHERWISE, SAME, GradientAddresses

pytestmark = pytest.mark.skipif(
    not gradient_addresses.available(), reason="PyTorch has no exchange API of DLPack before 2.10"
)

LAYOUTS = {
    "matrix": lambda: torch.randn(4, 3),
    "number": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
    "transposed": lambda: torch.randn(4, 3).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "behind another": lambda: torch.randn(9, 3)[2:],
    "bfloat16": lambda: torch.randn(7).bfloat16(),
}


def made(value):
    weight = Parameter(value)
    weight.grad = torch.randn_like(value)
    return weight


@pytest.mark.parametrize("layout", LAYOUTS)
def test_addresses_are_those_of_data_ptr(layout):
    weights = [made(LAYOUTS[layout]()) for _ in range(5)]
    found = GradientAddresses(weights)
    assert found.look() == CHANGED
    assert found.addresses.tolist() == [w.grad.data_ptr() for w in weights]
    assert found.look() == SAME
    if layout == "empty":
        return
    weights[3].grad = torch.randn_like(weights[3])
    assert found.look() == CHANGED
    assert found.addresses.tolist() == [w.grad.data_ptr() for w in weights]
    assert found.look() == SAME
    found.forget()
    assert found.look() == CHANGED


class WithoutGradient(torch.Tensor):
    @property
    def grad(self):
        raise ValueError("none of yours")


def replaced(weight, data):
    weight.data = data


OTHERS = {
    "none": lambda w: setattr(w, "grad", None),
    "gradient transposed": lambda w: setattr(w, "grad", torch.randn(3, 4).t()),
    "gradient expanded": lambda w: setattr(w, "grad", torch.randn(4, 1).expand(4, 3)),
    "gradient of zeros, sparse": lambda w: setattr(w, "grad", torch.zeros(4, 3).to_sparse()),
    "weight elsewhere": lambda w: replaced(w, w.detach().clone()),
    "weight transposed": lambda w: replaced(w, w.detach().view(3, 4).t()),
}


@pytest.mark.parametrize("change", OTHERS)
def test_what_is_out_of_the_ordinary_is_left_to_others(change):
    weights = [made(torch.randn(4, 3)) for _ in range(3)]
    found = GradientAddresses(weights)
    assert found.look() == CHANGED
    OTHERS[change](weights[1])
    assert found.look() == OTHERWISE


def test_a_weight_cut_to_its_beginning_is_noticed():
    weight = made(torch.randn(4, 3))
    found = GradientAddresses([weight])
    weight.data = weight.detach()[:2]
    weight.grad = torch.randn(2, 3)
    assert found.look() == OTHERWISE


def test_a_type_of_the_same_address_and_number_is_noticed():
    weight = made(torch.randn(4, 3))
    found = GradientAddresses([weight])
    half = torch.frombuffer(
        (ctypes.c_char * 24).from_address(weight.data_ptr()), dtype=torch.bfloat16
    )
    weight.grad = None
    weight.data = half.view(4, 3)
    weight.grad = torch.randn(4, 3).bfloat16()
    assert weight.shape == (4, 3)
    assert found.look() == OTHERWISE


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="gradients of another type")
def test_a_gradient_of_another_type_is_noticed():
    weight = Parameter(torch.randn(4, 3).bfloat16())
    weight.grad_dtype = None
    weight.grad = torch.randn(4, 3)
    assert GradientAddresses([weight]).look() == OTHERWISE


def test_strides_where_there_is_one_only_do_not_matter():
    weight = made(torch.randn(4, 1))
    weight.grad = torch.randn(4).as_strided((4, 1), (1, 77))
    found = GradientAddresses([weight])
    assert found.look() == CHANGED
    assert found.addresses.tolist() == [weight.grad.data_ptr()]


def test_other_sizes_of_as_many_are_noticed():
    weight = made(torch.randn(12, 1))
    found = GradientAddresses([weight])
    weight.data = weight.detach().view(1, 12)
    assert weight.grad.shape == (12, 1)
    assert found.look() == OTHERWISE


def test_an_error_of_someones_own_class_is_theirs_and_not_kept():
    odd = torch.randn(4, 3).as_subclass(WithoutGradient)
    assert (
        GradientAddresses([made(torch.randn(4, 3)), odd]).look() == OTHERWISE
    )  # and nothing is raised
    assert not ctypes.pythonapi.PyErr_Occurred()


def test_nothing_is_held_or_let_go_of():
    weights = [made(torch.randn(4, 3)) for _ in range(3)]
    gone = made(torch.randn(4, 3))
    gone.grad = None
    gradient = weights[0].grad
    found, other = GradientAddresses(weights), GradientAddresses([gone])

    def counts():
        return [sys.getrefcount(one) for one in (gradient, weights[0], weights)]

    before, nones = counts(), sys.getrefcount(None)
    for _ in range(1000):
        found.look()
        other.look()
    assert counts() == before
    assert abs(sys.getrefcount(None) - nones) < 500  # one a look would be 1000


@pytest.mark.parametrize("given", [None, 7, "torch.int32"])
def test_what_is_no_table_of_dlpack_is_not_used(given, monkeypatch):
    monkeypatch.setattr(
        gradient_addresses, "Tensor", SimpleNamespace(__dlpack_c_exchange_api__=given)
    )
    assert gradient_addresses._of_torch.__wrapped__() == 0


def test_an_older_table_behind_a_newer_one_is_found(monkeypatch):
    older, newer = ((ctypes.c_int64 * 7)(version) for version in (1 + (3 << 32), 2))
    older[5], newer[5] = 77, 78
    make = ctypes.PYFUNCTYPE(ctypes.py_object, *[ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p])
    make = make(("PyCapsule_New", ctypes.pythonapi))
    name = b"dlpack_exchange_api"
    capsule = make(ctypes.addressof(newer), name, None)
    held = SimpleNamespace(__dlpack_c_exchange_api__=capsule)
    monkeypatch.setattr(gradient_addresses, "Tensor", held)
    assert gradient_addresses._of_torch.__wrapped__() == 0  # none that is older
    newer[1] = ctypes.addressof(older)
    assert gradient_addresses._of_torch.__wrapped__() == 77


def test_steps_are_the_same_without_it(monkeypatch):
    def trained():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2)
        )
        model = model.to(memory_format=torch.channels_last)
        optimizer = optim.AdamW(model.parameters(), lr=1e-2, clip_norm=0.1)
        for step in range(8):
            optimizer.zero_grad()
            model(torch.randn(5, 3, 3, 3)).square().mean().backward()
            if step == 3:
                model[0].bias.grad = None
            if step == 4:
                model[2].weight.grad = model[2].weight.grad.t().contiguous().t()
            if step == 5:
                model[0].weight.data = model[0].weight.detach().clone()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    looked = []
    look = GradientAddresses.look
    with monkeypatch.context() as watched:
        watched.setattr(
            GradientAddresses, "look", lambda self: looked.append(look(self)) or looked[-1]
        )
        ours = trained()
    assert {SAME, CHANGED, OTHERWISE} >= set(looked) >= {CHANGED, OTHERWISE}
    monkeypatch.setattr(gradient_addresses, "available", lambda: False)
    for one, other in zip(ours, trained(), strict=True):
        assert torch.equal(one, other)
