"""PyTorch's own table of optimizer inputs, ours against torch's in float64."""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import ravine.optim

INFOS = {info.optim_cls.__name__: info for info in optim_db}

ABSENT = {
    "LBFGS": "searches along a line with many evaluations: not an update rule",
    "SparseAdam": "takes sparse gradients only, which are refused with a word",
}
"""Classes of torch's that have no counterpart here, and why."""

PRESENT = sorted(INFOS.keys() & ravine.optim.OPTIMIZERS.keys())

ACCEPTED = {
    "lr as Tensor doesn't work with foreach & not capturable": "a limit of torch's foreach",
    "betas must be either both floats or both Tensors": "a limit of torch's: numbers are numbers",
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True": (
        "a limit of torch's foreach"
    ),
    "Muon: only support 2D parameters": "other weights are stepped by AdamW",
    "Muon: does not support complex parameters": "complex weights are stepped by AdamW",
}
"""Inputs that torch refuses and that run here, by their description, and why."""

ONLY_OF_THE_OPTIMIZER = {
    "initial_accumulator_value": "torch starts every group's sums at the optimizer's own value",
}
"""Options of a group that torch takes without a word and leaves unused; here they count."""


@dataclass(frozen=True)
class Case:
    """A row of torch's table for one optimizer."""

    name: str
    kwargs: dict
    desc: str

    def __str__(self):
        return f"{self.name}-{self.desc}".replace(" ", "_")

    def made(self, module, weights):
        return getattr(module, self.name)(weights, **copy.deepcopy(self.kwargs))


CASES = [
    Case(name, row.kwargs, row.desc)
    for name in PRESENT
    for row in INFOS[name].optim_inputs_func(device="cpu", dtype=torch.float64)
]
BY_CASE = pytest.mark.parametrize("case", CASES, ids=str)
BACKENDS = pytest.mark.parametrize("backend", ["auto", "reference"])


@pytest.fixture(autouse=True)
def numbers_in_float64():
    """Torch keeps the numbers of NAdam and ASGD in the default type; float32 would round them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Pair:
    """The same weights twice, ours and torch's, and one stream of gradients for both."""

    def __init__(self, case, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        shapes = (4, 3), (), (5,), (2, 1, 2)
        self.tolerance = {"rtol": 1e-12, "atol": 1e-13}
        if case.name == "Muon":  # it takes matrices, and computes in bfloat16
            shapes = (4, 3), (3, 4), (1, 5), (3, 3)
            self.tolerance = {"rtol": 1e-5, "atol": 1e-5}
        values = [torch.randn(s, dtype=dtype, generator=generator) for s in shapes]
        self.ours = [torch.nn.Parameter(v.clone()) for v in values]
        self.theirs = [torch.nn.Parameter(v.clone()) for v in values]
        self.generator = generator

    def steps(self, ours, theirs, count=6):
        for step in range(count):
            for k, (w, v) in enumerate(zip(self.ours, self.theirs, strict=True)):
                w.grad = v.grad = None
                if (step + k) % 4:  # every weight is left out on some steps
                    w.grad = torch.randn(w.shape, dtype=w.dtype, generator=self.generator)
                    v.grad = w.grad.clone()
            ours.step()
            theirs.step()
            for w, v in zip(self.ours, self.theirs, strict=True):
                torch.testing.assert_close(w, v, **self.tolerance)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_every_class_of_torch_is_here_or_listed_as_absent():
    absent = INFOS.keys() - ravine.optim.OPTIMIZERS.keys()
    assert absent <= ABSENT.keys()


@BACKENDS
@BY_CASE
def test_forwards(case, backend):
    pair = Pair(case)
    groups = [{"params": pair.ours, "backend": backend}]
    pair.steps(case.made(ravine.optim, groups), case.made(torch.optim, pair.theirs))


@BACKENDS
@BY_CASE
def test_from_torch_to_ours_in_the_middle(case, backend):
    pair = Pair(case)
    theirs = case.made(torch.optim, pair.theirs)
    pair.steps(case.made(ravine.optim, pair.ours), theirs)
    ours = case.made(ravine.optim, [{"params": pair.ours, "backend": backend}])
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    pair.steps(ours, theirs)


@BACKENDS
@BY_CASE
def test_from_ours_to_torch_in_the_middle(case, backend):
    pair = Pair(case)
    ours = case.made(ravine.optim, [{"params": pair.ours, "backend": backend}])
    pair.steps(ours, case.made(torch.optim, pair.theirs))
    theirs = case.made(torch.optim, pair.theirs)
    theirs.load_state_dict(through_a_file(ours.state_dict()))
    pair.steps(ours, theirs)


@BY_CASE
def test_by_options_of_groups(case):
    pair = Pair(case)
    made = []
    for module, weights in ((ravine.optim, pair.ours), (torch.optim, pair.theirs)):
        plain = {"params": weights[:2]}
        options = copy.deepcopy(case.kwargs)
        common = {o: options.pop(o) for o in ONLY_OF_THE_OPTIMIZER if o in options}
        varied = {"params": weights[2:], **options, "lr": 0.03}
        made.append(getattr(module, case.name)([plain, varied], **common))
    pair.steps(*made)
    made[0].add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    assert made[0].param_groups[2]["lr"] == made[0].param_groups[0]["lr"]


@BY_CASE
@pytest.mark.parametrize("way", [{"foreach": True}, {"foreach": False}, {"fused": False}], ids=str)
def test_the_ways_of_torch_change_nothing(case, way):
    pair = Pair(case)
    ours = getattr(ravine.optim, case.name)(pair.ours, **case.kwargs, **way)
    pair.steps(ours, case.made(torch.optim, pair.theirs))


def test_an_option_of_a_group_that_torch_leaves_unused():
    ws = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": ws[:1]}, {"params": ws[1:], "initial_accumulator_value": 0.5}]
    optimizer = ravine.optim.Adagrad(groups)
    for w in ws:
        w.grad = torch.ones(1)
    optimizer.step()
    assert [optimizer.state[w]["sum"].item() for w in ws] == [1.0, 1.5]


COMPLEX = [case for case in CASES if INFOS[case.name].supports_complex]


@pytest.mark.parametrize("case", COMPLEX, ids=str)
def test_complex_weights(case):
    pair = Pair(case, torch.complex128)
    pair.steps(case.made(ravine.optim, pair.ours), case.made(torch.optim, pair.theirs))


ERRORS = [
    (name, error)
    for name in PRESENT
    for error in INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float64)
]


def attempted(name, error):
    """Make our optimizer as the table says, and step it where the error is to come then."""
    given = error.optimizer_error_input
    params = given.params
    if params is None:
        params = [torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))]
    optimizer = getattr(ravine.optim, name)(params, **given.kwargs)
    if error.error_on is OptimizerErrorEnum.STEP_ERROR:
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("name", "error"), ERRORS, ids=[f"{n}-{e.optimizer_error_input.desc}" for n, e in ERRORS]
)
def test_what_torch_refuses(name, error):
    desc = error.optimizer_error_input.desc
    if desc in ACCEPTED or f"{name}: {desc}" in ACCEPTED:
        attempted(name, error).step()
        return
    if error.error_type is UserWarning:
        with pytest.warns(UserWarning, match=error.error_regex):
            attempted(name, error)
        return
    with warnings.catch_warnings(), pytest.raises((ValueError, TypeError)) as caught:
        warnings.simplefilter("error")
        attempted(name, error)
    # What torch finds out in the step is told when the optimizer is made, as of a wrong value.
    found_late = error.error_on is OptimizerErrorEnum.STEP_ERROR
    assert isinstance(caught.value, ValueError if found_late else error.error_type)
