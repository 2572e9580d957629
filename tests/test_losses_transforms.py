"""What torch does to functions (jacobians, batched gradients, compilation) sees the same losses."""

from __future__ import annotations

import pytest
import torch
from loss_table import ROWS
from test_losses_autograd import gradient_of, smooth
from test_losses_numbers import EACH, WIDE, leaf, loss_of

# A gradient within what torch compiles: each loss once.
FIRST = {
    (row.loss, row.extra.get("kind"), "class_weight" in row.options): row for row in reversed(ROWS)
}.values()
# Compiled, a loss is plain operations of torch, and every option's are taken apart and put together
# without a break. The C++ made of them is torch's own: of each kind of arguments once, all in one graph,
# as its compiler takes 2 s to begin with.
WITH_INDUCTOR = [
    row
    for row in FIRST
    if row.loss in ("mse", "gaussian_nll", "focal", "cross_entropy", "kl_divergence")
]
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
SOME_WEIGHT = torch.tensor([0.3, 1.0, 0.0, 0.7], dtype=WIDE)


def jacobian_by_rows(call, x):
    """One backward for each element of the result, through the kernels."""
    z = leaf(x)
    found = call(z)
    rows = [
        torch.autograd.grad(found, z, unit.reshape(found.shape), retain_graph=True)[0]
        for unit in torch.eye(found.numel(), dtype=found.dtype)
    ]
    return torch.stack(rows).reshape(*found.shape, *x.shape)


@EACH
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_batched_gradients(row, reduction, create_graph):  # numerics 17
    x, y = smooth(row)

    def call(z):
        return loss_of(row, z, y, weight=SOME_WEIGHT, reduction=reduction)

    z = leaf(x)
    found = call(z)
    upstream = torch.randn(3, *found.shape, dtype=WIDE)
    (together,) = torch.autograd.grad(
        found, z, upstream, is_grads_batched=True, create_graph=create_graph, retain_graph=True
    )
    single = [torch.autograd.grad(found, z, one, retain_graph=True)[0] for one in upstream]
    torch.testing.assert_close(together.detach(), torch.stack(single), **CLOSE)


@EACH
@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians(row, transform):
    x, y = smooth(row)

    def call(z):
        return loss_of(row, z, y, weight=SOME_WEIGHT, reduction="none")

    torch.testing.assert_close(transform(call)(x), jacobian_by_rows(call, x), **CLOSE)


@EACH
def test_hessian_and_its_product_by_three_ways(row):
    x, y = smooth(row)
    direction = torch.randn_like(x)

    def call(z):
        return loss_of(row, z, y, weight=SOME_WEIGHT)

    hessian = torch.func.hessian(call)(x)
    torch.testing.assert_close(torch.func.jacrev(torch.func.grad(call))(x), hessian, **CLOSE)
    wanted = (hessian.reshape(x.numel(), -1) @ direction.reshape(-1)).reshape(x.shape)
    _, forward = torch.func.jvp(torch.func.grad(call), (x,), (direction,))
    torch.testing.assert_close(forward, wanted, rtol=1e-11, atol=1e-13)
    _, backward = torch.autograd.functional.vhp(call, x, direction)
    torch.testing.assert_close(backward, wanted, rtol=1e-11, atol=1e-13)


@EACH
def test_vmap_over_other_dimensions_and_twice(row):
    x, y = row.samples((3, 4), WIDE)
    sums = torch.func.vmap(lambda a, b: loss_of(row, a, b, reduction="sum"), in_dims=1)(x, y)
    single = [loss_of(row, x[:, k], y[:, k], reduction="sum") for k in range(4)]
    torch.testing.assert_close(sums, torch.stack(single), **CLOSE)
    nested = torch.func.vmap(torch.func.vmap(lambda a, b: loss_of(row, a, b, reduction="sum")))
    torch.testing.assert_close(nested(x, y), loss_of(row, x, y, reduction="none"), **CLOSE)


def compiled_against_eager(rows, backend, reduction):
    """Compile the losses of rows in one graph; each has the value and the gradient that it has without."""
    samples = []
    for row in rows:
        x, y = smooth(row)
        if not y.is_floating_point() and row.loss == "cross_entropy":
            y[1] = -100
        samples.append((x, y))

    def call(inputs, targets, w):
        return [
            loss_of(row, z, t, weight=w, reduction=reduction)
            for row, z, t in zip(rows, inputs, targets, strict=True)
        ]

    torch._dynamo.reset()
    targets = [y for _, y in samples]
    ours, theirs = ([leaf(x) for x, _ in samples] for _ in range(2))
    compiled = torch.compile(call, backend=backend, fullgraph=True)
    found, exact = compiled(ours, targets, SOME_WEIGHT), call(theirs, targets, SOME_WEIGHT)
    sum(one.sum() for one in found).backward()
    sum(one.sum() for one in exact).backward()
    for k, row in enumerate(rows):
        for one, other in ((found[k], exact[k]), (ours[k].grad, theirs[k].grad)):
            torch.testing.assert_close(one, other, **CLOSE, msg=lambda m, row=row: f"{row}: {m}")


@EACH
def test_compiles_without_a_graph_break(row):  # numerics 17
    compiled_against_eager([row], "aot_eager", "none")


@pytest.mark.slow
def test_compiles_with_inductor():
    assert len(WITH_INDUCTOR) == 9
    compiled_against_eager(WITH_INDUCTOR, "inductor", "mean")


@pytest.mark.parametrize("row", FIRST, ids=str)
def test_a_gradient_inside_a_compiled_function(row):
    x, y = smooth(row)
    torch._dynamo.reset()

    def call(z):
        return torch.func.grad(lambda a: loss_of(row, a, y))(z)

    found = torch.compile(call, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, gradient_of(row, x, y), **CLOSE)
