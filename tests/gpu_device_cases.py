"""What only a real GPU shows of elementwise losses; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from test_losses_numbers import leaf

from ravine import losses
from ravine.errors import ArgumentError

LOSSES = [losses.mse, losses.binary_cross_entropy]


def pair(size=5000, device="cuda"):
    x, y = torch.randn(size, device=device), torch.rand(size, device=device)
    return leaf(x), y


def exact(loss, x, y):
    found = loss(x.detach().double().cpu().requires_grad_(), y.double().cpu())
    return found.float().detach()


def captured(work):
    """Return a graph of a function, and what it returned."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    return graph, found


@pytest.fixture
def no_waiting():
    """Let every operation raise that waits for the device."""
    torch.cuda.synchronize()

    def forbid():
        torch.cuda.set_sync_debug_mode("error")

    yield forbid
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_unchecked_nothing_waits(loss, kind, no_waiting):
    x, y = pair()
    x, weight = leaf(x.to(kind)), torch.rand_like(y)
    no_waiting()
    for given in (None, weight):  # the first call of a size, too
        for reduction in ("mean", "sum"):
            loss(x, y, weight=given, reduction=reduction, check="off").backward()


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.poly, losses.multi_margin], ids=str)
@pytest.mark.parametrize("kind", ["tensor", "list", "of the CPU"])
def test_unchecked_numbers_of_the_classes_wait_for_nothing(loss, kind, no_waiting):
    x, y = leaf(torch.randn(50, 4, device="cuda")), torch.randint(4, (50,), device="cuda")
    given = [1.0, 0.5, 2.0, 0.0]
    want = loss(x.detach().cpu(), y.cpu(), class_weight=given, normalizer=40.0)
    amount = torch.tensor(40.0, device="cuda")
    if kind != "list":
        given = torch.tensor(given, device="cuda" if kind == "tensor" else "cpu")
    no_waiting()
    found = loss(x, y, class_weight=given, normalizer=amount, check="off")
    found.backward()
    torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.detach().cpu(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_cuda_graph_holds_the_plain_operations(loss):
    x, y = pair()
    x = x.detach()
    graph, found = captured(lambda: loss(x, y, check="off"))
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(found.cpu(), exact(loss, x, y), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_forward_and_backward_in_a_graph_between_eager_calls(loss, kind):
    """Neither holds what is the other's: eager calls of the same size before, between and after."""
    x, y = pair()
    x, weight = leaf(x.detach().to(kind)), torch.rand_like(y)

    def work():
        found = loss(x, y, weight=weight, check="off")
        return found, *torch.autograd.grad(found, x)

    def same_eagerly(found):
        for one, other in zip(found, work(), strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3 if one.ndim else 1e-5, atol=1e-7)

    work()
    graph, found = captured(work)
    for _ in range(3):
        with torch.no_grad():
            x.normal_()
        graph.replay()
        same_eagerly(found)
    del graph, found
    torch.cuda.empty_cache()
    work()


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.categorical_focal, losses.multi_margin], ids=str
)
def test_losses_over_rows_in_a_graph(loss):
    x, y = leaf(torch.randn(50, 10, device="cuda")), torch.randint(10, (50,), device="cuda")
    of_class, amount = torch.rand(10, device="cuda"), torch.full((), 40.0, device="cuda")
    option = "alpha" if loss is losses.categorical_focal else "class_weight"

    def work():
        found = loss(x, y, normalizer=amount, check="off", **{option: of_class})
        return found, *torch.autograd.grad(found, x)

    graph, found = captured(work)
    for _ in range(2):
        with torch.no_grad():
            x.normal_(), of_class.uniform_(), amount.add_(1)
            y.random_(10)
        graph.replay()
        for one, other in zip(found, work(), strict=True):
            torch.testing.assert_close(one, other)


def test_a_linear_head_in_a_graph():
    hidden, head = leaf(torch.randn(50, 8, device="cuda")), leaf(torch.randn(90, 8, device="cuda"))
    y = torch.randint(90, (50,), device="cuda")

    def work():
        found = losses.linear_cross_entropy(hidden, head, y, check="off")
        return found, *torch.autograd.grad(found, (hidden, head))

    graph, found = captured(work)
    for ignored in (3, 7):
        y[ignored] = -100
        graph.replay()
        for one, other in zip(found, work(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.linear_cross_entropy], ids=str)
def test_what_is_checked_says_that_it_cannot_be_captured(loss):
    x, y = torch.randn(50, 10, device="cuda"), torch.randint(10, (50,), device="cuda")
    rest = (y,) if loss is losses.cross_entropy else (x[:10], y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(ArgumentError, match="what it checks cannot be captured"):
            loss(x, *rest)
        doubled = 2 * x
    graph.replay()
    assert torch.equal(doubled, 2 * x)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_streams_in_turn(loss):
    pairs = [pair(1_000_000) for _ in range(6)]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    found = []
    for k, (x, y) in enumerate(pairs):
        with torch.cuda.stream(streams[k % 2]):
            found.append(loss(x, y, check="off"))
            found[-1].backward()
    torch.cuda.synchronize()
    for (x, y), value in zip(pairs, found, strict=True):
        torch.testing.assert_close(value.cpu(), exact(loss, x, y), rtol=1e-6, atol=0)
        z = leaf(x.detach().cpu())
        loss(z, y.cpu()).backward()
        torch.testing.assert_close(x.grad.cpu(), z.grad, rtol=2e-6, atol=1e-12)


def test_every_device():
    for index in range(torch.cuda.device_count()):
        x, y = pair(device=f"cuda:{index}")
        found = losses.mse(x, y)
        found.backward()
        assert found.device == x.grad.device == x.device
        torch.testing.assert_close(found.cpu(), exact(losses.mse, x, y), rtol=1e-6, atol=0)


def test_tables_made_in_inference_mode_serve_outside_of_it():
    x, y = pair(777)
    with torch.inference_mode():
        inside = losses.mae(x, y)
    with torch.no_grad():
        for z in (x, x.clone()):  # another address: the tables are sent again
            assert torch.equal(losses.mae(z, y), inside.clone())
