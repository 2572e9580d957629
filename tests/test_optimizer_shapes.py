"""Weights and gradients of every shape and layout, in float64 lock-step with torch."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ravine.optim

# Without NAdam and ASGD: torch keeps their numbers in float32, see tests/rule_papers.py.
PAIRS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("Adamax", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.01, "lr_decay": 0.1}),
    ("Adadelta", {"lr": 0.5}),
    ("Rprop", {"lr": 0.01}),
]
each = pytest.mark.parametrize(("name", "options"), PAIRS, ids=[name for name, _ in PAIRS])


def as_laid_out(tensor, order, gaps, broadcast=False):
    """Return the same numbers with dimensions in another order of memory, and with gaps."""
    dims = tensor.dim()
    order = [k for k in order if k < dims]
    inverse = sorted(range(dims), key=order.__getitem__)
    shuffled = tensor.permute(order)
    room = torch.full([2 * s if gaps else s for s in shuffled.shape], torch.nan, dtype=tensor.dtype)
    view = room[tuple(slice(None, None, 2) for _ in shuffled.shape)] if gaps else room
    view = view.copy_(shuffled).permute(inverse)
    if broadcast and dims and tensor.shape[0] > 1:
        return view[:1].expand(tensor.shape)  # one row of memory, many times
    return view


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
orders = st.permutations(range(4))
tensors = st.tuples(shapes, orders, st.booleans(), orders, st.sampled_from(["", "gaps", "expand"]))


@settings(max_examples=60, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    drawn=st.lists(tensors, min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_any_shapes_and_strides(pair, drawn, seed):
    name, options = pair
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = [], []
    for shape, order, gaps, _, _ in drawn:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        ours.append(torch.nn.Parameter(as_laid_out(values, order, gaps)))
        theirs.append(torch.nn.Parameter(values.clone()))
    a = getattr(ravine.optim, name)(ours, **options)
    b = getattr(torch.optim, name)(theirs, foreach=False, **options)
    for step in range(3):
        for w, v, (shape, _, _, order, how) in zip(ours, theirs, drawn, strict=True):
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            w.grad = as_laid_out(
                values, order[step:] + order[:step], how == "gaps", how == "expand"
            )
            v.grad = w.grad.clone(memory_format=torch.contiguous_format)
        kept = [w.grad.clone() for w in ours]
        a.step()
        b.step()
        for w, v, g in zip(ours, theirs, kept, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)
            assert torch.equal(w.grad, g)


def lock_step(name, options, ours, theirs, steps=4):
    a = getattr(ravine.optim, name)(ours, **options)
    b = getattr(torch.optim, name)(theirs, **options)
    for _ in range(steps):
        for w, v in zip(ours, theirs, strict=True):
            w.grad = torch.randn_like(w)
            v.grad = w.grad.clone()
        a.step()
        b.step()
        for w, v in zip(ours, theirs, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)
    return a


@each
def test_channels_last_is_compiled(name, options):
    values = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    ours = [torch.nn.Parameter(values.clone(memory_format=torch.channels_last))]
    theirs = [torch.nn.Parameter(values.clone(memory_format=torch.channels_last))]
    optimizer = lock_step(name, options, ours, theirs)
    assert "cpu kernel" in optimizer.explain()
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@each
def test_views_of_one_flat_buffer(name, options):
    """As flattened models keep their weights: each a view with an offset into one storage."""
    flat, other = (torch.arange(24, dtype=torch.float64).clone() for _ in "ab")
    cut = [(0, 6, (2, 3)), (6, 1, ()), (7, 0, (0,)), (7, 17, (17,))]
    ours, theirs = (
        [torch.nn.Parameter(buffer[start : start + n].view(s)) for start, n, s in cut]
        for buffer in (flat, other)
    )
    lock_step(name, options, ours, theirs)
    torch.testing.assert_close(flat, other, rtol=1e-12, atol=1e-13)


def test_two_parameters_over_one_storage():
    """Tied weights as two parameters: each steps the same memory, one after the other."""
    shared = torch.ones(5, dtype=torch.float64)
    ours = [torch.nn.Parameter(shared), torch.nn.Parameter(shared)]
    optimizer = ravine.optim.SGD(ours, lr=0.5)
    for w in ours:
        w.grad = torch.ones(5, dtype=torch.float64)
    optimizer.step()
    assert shared.tolist() == [0] * 5


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@each
def test_numbers_that_are_not_ordinary(name, options, backend):
    """NaN, infinities, subnormal, huge and zero: what torch makes of them, we make of them."""
    odd = [
        float("nan"),
        float("inf"),
        -float("inf"),
        0.0,
        -0.0,
        5e-324,
        1e-310,
        1e-160,
        1e160,
        1e308,
    ]
    # The centred form takes the difference of two roundings of the same number here.
    options = {key: value for key, value in options.items() if key != "centered"}
    g = torch.tensor(odd, dtype=torch.float64)
    ws = [torch.nn.Parameter(torch.full_like(g, scale)) for scale in (0.0, 1.0, 1e-300, 1e300)]
    vs = [torch.nn.Parameter(w.detach().clone()) for w in ws]
    a = getattr(ravine.optim, name)(ws, backend=backend, **options)
    b = getattr(torch.optim, name)(vs, foreach=False, **options)
    for step in range(4):
        for w, v in zip(ws, vs, strict=True):
            w.grad, v.grad = g.roll(step), g.roll(step)
        a.step()
        b.step()
        for w, v in zip(ws, vs, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-11, atol=0, equal_nan=True)


def test_a_weight_cut_to_a_part_of_itself_at_the_same_address():
    w = torch.nn.Parameter(torch.zeros(1000))
    whole = w.data
    optimizer = ravine.optim.SGD([w], lr=1.0)
    w.grad = torch.ones(1000)
    optimizer.step()
    w.grad = None
    w.data = w.data[:10]
    w.grad = torch.ones(10)
    optimizer.step()
    assert whole[:10].tolist() == [-2.0] * 10
    assert whole[10:].eq(-1).all()


COMPLEX = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adamax", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.01}),
    ("Adadelta", {"lr": 0.5}),
    ("Rprop", {"lr": 0.01}),
]


@pytest.mark.parametrize(("name", "options"), COMPLEX, ids=str)
@pytest.mark.parametrize("shape", [(3, 2), (), (0,)], ids=str)
def test_complex_weights(name, options, shape):
    values = torch.randn(shape, dtype=torch.complex128)
    real = torch.randn(4, dtype=torch.float64)
    ours = [torch.nn.Parameter(values.clone()), torch.nn.Parameter(real.clone())]
    theirs = [torch.nn.Parameter(values.clone()), torch.nn.Parameter(real.clone())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = lock_step(name, options, ours, theirs, steps=6)
    assert "reference: no kernels for torch.complex128" in optimizer.explain()
    fresh = getattr(torch.optim, name)(theirs, **options)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = getattr(ravine.optim, name)(ours, **options)
    again.load_state_dict(fresh.state_dict())
    for w, v in zip(ours, theirs, strict=True):
        w.grad = torch.randn_like(w)
        v.grad = w.grad.clone()
    again.step()
    fresh.step()
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-13)
