"""Where numbers lie in memory does not matter, and memory used again belongs to nobody."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from loss_table import ROWS
from test_losses_numbers import EACH, leaf, loss_of

import ravine.optim
from ravine import losses
from ravine.losses import buffers

BIG = 300_000  # float32 numbers: more than 1 MB, more than the threads' threshold


def gradient_of(row, x, y, **more):
    x = leaf(x)
    loss_of(row, x, y, **more).sum().backward()
    return x.grad


def layouts(x):
    """Yield the same numbers in other places of memory."""
    yield x.t().contiguous().t() if x.ndim == 2 else x.clone()
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    wide[..., ::2] = x
    yield wide[..., ::2]
    yield torch.cat([x.new_zeros(1, *x.shape[1:]), x])[1:]


@EACH
def test_layout_of_memory_does_not_matter(row):
    x, y = row.samples((6, 4), torch.float32)
    weight = torch.rand(6, 4)

    def both(z, t):
        z = leaf(z)
        found = loss_of(row, z, t, weight=weight)
        found.backward()
        return found.detach(), z.grad

    found, exact = both(x, y)
    for z in layouts(x):
        for t in layouts(y) if y.shape == x.shape else (y, y.t().contiguous().t()):
            value, gradient = both(z, t)
            torch.testing.assert_close(value, found, rtol=3e-7, atol=0)
            assert torch.equal(gradient, exact)


@pytest.mark.parametrize("row", [r for r in ROWS if not r.rows], ids=str)
def test_expanded_channels_last_and_0_dimensional_input(row):
    x, y = row.samples((2, 3, 4, 5), torch.float32)
    last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(gradient_of(row, last, y), gradient_of(row, x, y), rtol=0, atol=0)
    single, target = row.samples((1, 3), torch.float32)
    ours, theirs = leaf(single), leaf(single)
    loss_of(row, ours.expand(4, 3), target.expand(4, 3)).backward()
    row.oracle(theirs.expand(4, 3), target.expand(4, 3)).mean().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-7)
    point = leaf(x[0, 0, 0, 0])
    found = loss_of(row, point, y[0, 0, 0, 0])
    found.backward()
    assert found.shape == ()
    assert point.grad.shape == ()


@EACH
def test_threads_give_the_same_bits(row):
    x, y = row.samples((BIG // 5,) if row.rows else (BIG,), torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            z = leaf(x)
            found = loss_of(row, z, y)
            found.backward()
            results.append((found.detach(), z.grad.clone()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.loss in ("mse", "cross_entropy") and not r.options], ids=str
)
def test_memory_used_again_never_changes_what_somebody_holds(row):
    held = []
    for k in range(12):
        count = BIG + 5 * (k % 3)
        x, y = row.samples((count // 5 if row.rows else count,), torch.float32)
        one, two = leaf(x), leaf(x * 1.5)
        first, second = loss_of(row, one, y), loss_of(row, two, y, reduction="none")
        again = torch.autograd.grad(first, one, retain_graph=True)[0]
        second.sum().backward()
        first.backward()
        kind = k % 6
        kept = (
            one.grad,
            one.grad.view(-1)[7:],
            one.grad.numpy(),
            one.grad.untyped_storage(),
            second.detach(),
            again,
        )[kind]
        seen = torch.tensor(list(kept)) if kind == 3 and len(kept) < 100 else None
        seen = torch.as_tensor(bytes_of(kept)).clone() if seen is None else seen
        held.append((kept, seen))
        if k % 4 == 3:
            held.pop(0)
        del one, two, first, second, again, kept
    for kept, seen in held:
        assert torch.equal(torch.as_tensor(bytes_of(kept)), seen)


def bytes_of(kept):
    """Return what somebody holds, as numbers."""
    if isinstance(kept, torch.UntypedStorage):
        return torch.empty(0).set_(kept, 0, (kept.nbytes() // 4,), (1,))
    return kept


def test_memory_is_used_again_when_nobody_holds_it():
    x = leaf(torch.randn(BIG))
    y = torch.randn(BIG)
    places = set()
    for _ in range(4):
        x.grad = None
        losses.mse(x, y).backward()
        places.add(x.grad.data_ptr())
    assert len(places) == 1
    assert len(buffers._kept) <= buffers.KEPT


def test_threads_do_not_share_memory_in_use():
    torch.manual_seed(3)
    y = torch.randn(BIG)
    wrong = []

    def work(seed):
        x = leaf(torch.full((BIG,), float(seed)))
        for _ in range(8):
            x.grad = None
            losses.mse(x, y, reduction="sum").backward()
            if not torch.equal(x.grad, 2 * (x.detach() - y)):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_tensors_stay_where_the_input_is_whatever_the_default_device():
    x, y = leaf(torch.randn(BIG)), torch.rand(BIG)
    weight = torch.nn.Parameter(torch.randn(BIG))
    each, classes = (losses.cross_entropy, losses.hinge), torch.arange(8)
    few, many = torch.randn(8, 9), torch.randn(8, 9000)
    with torch.device("meta"):
        found = losses.mse(x, y)
        found.backward(torch.tensor(1.0, device="cpu"))
        weight.grad = x.grad
        optimizer = ravine.optim.Adam([weight])
        optimizer.step()
        clipped = ravine.regularize.clip_norm_([weight], 0.5)
        rows = [loss(scores, classes) for scores in (few, many) for loss in each]
    expected = [loss(scores, classes) for scores in (few, many) for loss in each]
    assert rows == expected and clipped.device == x.device
    assert {found.device, x.grad.device, optimizer.state[weight]["exp_avg"].device} == {x.device}
    assert found.item() == losses.mse(x, y).item()


def test_inference_mode_leaves_no_memory_that_cannot_be_written():
    buffers._kept.clear()
    x, y = torch.randn(BIG), torch.randn(BIG)
    with torch.inference_mode():
        losses.mse(x, y, reduction="none")
    x.requires_grad_()
    (losses.mse(x, y) * 2).backward()
    x.grad.add_(1)
    element = losses.mse(x, y, reduction="none")
    element.mul_(2).sum().backward()


def test_modules_can_be_copied_and_pickled():
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    module = losses.CrossEntropy(label_smoothing=0.1, reduction="sum")
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x, y), module(x, y))
        assert repr(other) == "cross_entropy(label_smoothing=0.1, reduction='sum')"


def test_autocast_changes_nothing():
    x, y = torch.randn(8, 3), torch.randint(3, (8,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.cross_entropy(x, y), losses.cross_entropy(x, y).float())
        assert losses.mse(x, x + 1).dtype is torch.float32
