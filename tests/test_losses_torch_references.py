"""PyTorch's own inputs and references for losses, as they lie in its wheel, in float64 against ours."""

from __future__ import annotations

import collections
import inspect
from functools import cache, partial

import pytest
import torch
from torch_translation import NOT_SHARED, OPERATORS, TRANSLATED, Apart, without_gradient

from ravine import losses

WIDE = torch.float64
# How many calls have no counterpart, by reason; a torch with other inputs must be looked at anew.
EXCEPTIONS = {
    ("KLDivLoss", "module"): {"targets that are NaN are an error here": 7},
    ("CrossEntropyLoss", "module"): {"the mean of ignored samples only is NaN in torch, 0 here": 1},
    ("binary_cross_entropy_with_logits", "operator"): {
        "pos_weight: a sample weight of 1 + (pos_weight - 1) y for y = 0 and 1 only": 6
    },
}


# Torch's tables of all operators take 5 s to import: not in every process that collects the tests.
@cache
def modules() -> dict:
    from torch.testing._internal import common_modules

    return {
        info.module_cls.__name__: info
        for info in common_modules.module_db
        if info.module_cls.__name__.endswith("Loss")
    }


@cache
def loss_operators() -> dict:
    from torch.testing._internal.common_methods_invocations import op_db

    named = {op.name.removeprefix("nn.functional."): op for op in op_db}
    return {name: op for name, op in named.items() if name in OPERATORS}


def references() -> dict:
    from torch.testing._internal import common_nn

    return common_nn.loss_reference_fns


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


def compare(translate, input, target, options, theirs, apart):
    """Compare value and gradient of one call; count it where it has no counterpart."""
    target = without_gradient(target)
    try:
        ours = translate(input.detach(), target, **options)
    except Apart as reason:
        apart[str(reason)] += 1
        return
    x, z = (input.detach().clone().requires_grad_() for _ in range(2))
    found, wanted = ours(x), theirs(z, target)
    close(found, wanted)
    if wanted.numel():
        upstream = torch.linspace(0.5, 1.5, wanted.numel(), dtype=WIDE).reshape(wanted.shape)
        found.backward(upstream)
        wanted.backward(upstream)
        close(x.grad, z.grad)


def test_every_loss_of_torch_is_compared_or_has_a_reason():
    named = {name.removesuffix("_log_target") for name in references()}
    known = TRANSLATED.keys() | NOT_SHARED.keys()
    assert named | modules().keys() <= known
    assert not TRANSLATED.keys() & NOT_SHARED.keys()
    assert loss_operators().keys() == OPERATORS.keys()


def ours(name):
    loss, translate = TRANSLATED[name]
    if loss not in losses.FUNCTIONS:
        pytest.skip(f"there is no loss {loss}")
    return translate


def usable(options):
    """Return the options with weights >= 0; torch draws negative ones too, an error here."""
    given = {name: without_gradient(value) for name, value in options.items()}
    if given.get("weight") is not None:
        given["weight"] = given["weight"].abs()
    return given


def bound(info, call):
    names = [*inspect.signature(info.module_cls.__init__).parameters][1:]
    return usable({**dict(zip(names, call.args, strict=False)), **call.kwargs})


@pytest.mark.parametrize("name", TRANSLATED)
def test_inputs_of_the_modules(name):
    info, translate, apart = modules()[name], ours(name), collections.Counter()
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=WIDE, requires_grad=False, training=True
    )
    count = 0
    for case in inputs:
        count += 1
        options = bound(info, case.constructor_input)
        module = info.module_cls(**options)
        input, target = case.forward_input.args
        compare(translate, input, target, options, module, apart)
        if case.reference_fn is not None and "weight" not in options:
            torch.testing.assert_close(
                module(input, target), case.reference_fn(module, input, target), equal_nan=True
            )
    assert count
    assert apart == EXCEPTIONS.get((name, "module"), {})


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_of_the_operators(name):
    op, translate, apart = loss_operators()[name], ours(OPERATORS[name]), collections.Counter()
    count = 0
    for sample in op.sample_inputs("cpu", WIDE):
        count += 1
        assert len(sample.args) == 1, "a positional option that nobody has translated"

        options = usable(sample.kwargs)
        theirs = partial(op.op, **options)
        compare(translate, sample.input, sample.args[0], options, theirs, apart)
    assert count
    assert apart == EXCEPTIONS.get((name, "operator"), {})


# Torch's references round delta and beta to float32: these have no more digits.
REFERENCE_OPTIONS = {
    "HuberLoss": ({}, {"delta": 0.375}),
    "SmoothL1Loss": ({}, {"beta": 0.375}),
    "KLDivLoss": ({}, {"log_target": True}),
    "CrossEntropyLoss": (
        {},
        {"label_smoothing": 0.2},
        {"ignore_index": 1},
        {"weight": torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=WIDE)},
        {"weight": torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=WIDE), "label_smoothing": 0.2},
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", REFERENCE_OPTIONS)
def test_references_in_plain_python(name, reduction):
    translate, reference = ours(name), references()[name]
    for options in REFERENCE_OPTIONS[name]:
        if name == "CrossEntropyLoss":
            x, y = torch.randn(6, 4, dtype=WIDE), torch.randint(4, (6,))
        elif name == "KLDivLoss":
            x, y = torch.randn(2, 6, 4, dtype=WIDE).log_softmax(-1)
            y = y if options else y.exp()
        else:
            x, y = torch.randn(2, 6, 4, dtype=WIDE)
        found = translate(x, y, reduction=reduction, **options)(x)
        wanted = reference(x, y, reduction=reduction, **options)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
