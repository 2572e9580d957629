"""What only a real GPU shows of losses; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from test_losses_numbers import leaf

from ravine import losses

LOSSES = [losses.mse, losses.binary_cross_entropy]


def pair(size=5000, device="cuda"):
    x, y = torch.randn(size, device=device), torch.rand(size, device=device)
    return leaf(x), y


def exact(loss, x, y):
    found = loss(x.detach().double().cpu().requires_grad_(), y.double().cpu())
    return found.float().detach()


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


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_cuda_graph_holds_the_plain_operations(loss):
    x, y = pair()
    x = x.detach()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        loss(x, y, check="off")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = loss(x, y, check="off")
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(found.cpu(), exact(loss, x, y), rtol=1e-5, atol=0)


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


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_the_head_in_half_precision_needs_little_besides_its_gradients(kind, no_waiting):
    """The logits would be 1074 MB in float32."""
    from ravine.losses.linear_class_memory import MOST_BYTES
    from ravine.losses.linear_products import serve

    rows, width, classes = 4096, 1024, 65536
    hidden = leaf(torch.randn(rows, width, device="cuda", dtype=kind))
    weight = leaf(torch.randn(classes, width, device="cuda", dtype=kind) * 0.03)
    target = torch.randint(classes, (rows,), device="cuda")
    assert serve(hidden)  # torch 2.10 or later
    found = losses.linear_cross_entropy(hidden, weight, target)
    found.backward()
    first, hidden.grad, weight.grad = weight.grad, None, None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    again = losses.linear_cross_entropy(hidden, weight, target)
    no_waiting()
    again.backward()
    most = torch.cuda.max_memory_allocated() - before
    assert torch.equal(found, again) and torch.equal(first, weight.grad)
    assert most < hidden.nbytes + weight.nbytes + MOST_BYTES + 4 * rows * width + 4e6
    some = slice(0, 64)
    logits = hidden.detach()[some].double() @ weight.detach().double().T
    want = torch.nn.functional.cross_entropy(logits, target[some], reduction="none")
    torch.cuda.set_sync_debug_mode("default")
    got = losses.linear_cross_entropy(
        hidden.detach()[some], weight.detach(), target[some], reduction="none"
    )
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
