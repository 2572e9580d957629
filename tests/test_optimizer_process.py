"""Optimizers in forked processes and in several threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import programs
import pytest
import torch

import ravine.optim
from ravine.engine import cpu

BIG = 3 * cpu.PARALLEL_FROM

FORKED = """
import os, sys, torch, ravine.optim
w = torch.nn.Parameter(torch.zeros({size}))
optimizer = ravine.optim.Adam([w], lr=0.1, clip_norm=1.0)
w.grad = torch.ones({size})
optimizer.step()  # starts the threads
child = os.fork()
for _ in range(2):
    optimizer.step()
value = w.detach()[[0, {size} - 1]].tolist()
os.write(1, f"{{'parent' if child else 'child'}} {{value}}\\n".encode())
if child:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_steps_after_its_parent_did():
    done = programs.run(["-c", FORKED.format(size=BIG)])
    assert done.returncode == 0, done.stderr
    results = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert results["child"] == results["parent"]


def final_weights(seed, barrier=None, shape=(BIG,)):
    generator = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = ravine.optim.Adam([w], lr=0.01, clip_norm=1.0, average=0.9)
    for _ in range(6):
        w.grad = torch.randn(shape, generator=generator)
        if barrier is not None:
            barrier.wait()
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("shape", [(BIG,), (5, 3)], ids=["parallel", "serial"])
def test_two_optimizers_in_two_threads(shape):
    alone = [final_weights(seed, shape=shape) for seed in (1, 2)]
    barrier = threading.Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as pool:
        together = [*pool.map(lambda seed: final_weights(seed, barrier, shape), (1, 2))]
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)


FIRST_AT_ONCE = """
import threading, torch, ravine.optim
barrier, failed = threading.Barrier(2), []
def first(k):
    try:
        w = torch.nn.Parameter(torch.zeros(4))
        optimizer = ravine.optim.SGD([w], lr=0.5)
        w.grad = torch.ones(4)
        barrier.wait()
        optimizer.step()
        assert w.tolist() == [-0.5] * 4
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=first, args=(k,)) for k in range(2)]
for t in threads: t.start()
for t in threads: t.join()
assert not failed, failed
"""


def test_two_threads_need_the_same_new_kernel_at_once(tmp_path):
    environment = {**os.environ, "RAVINE_CACHE_DIR": str(tmp_path)}
    programs.run(["-c", FIRST_AT_ONCE], env=environment, check=True)
    assert len([*tmp_path.glob("*.py")]) == 2  # the step's, and that which finds the gradients


IN_BACKWARD = """
import torch, ravine.optim
model = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(4)))
optimizers = {p: ravine.optim.SGD([p], lr=0.1) for p in model.parameters()}
def at_once(p):
    optimizers[p].step()
    optimizers[p].zero_grad()
for p in model.parameters():
    p.register_post_accumulate_grad_hook(at_once)
before = [p.detach().clone() for p in model.parameters()]
model(torch.ones(2, 300)).sum().backward()
assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
assert all(p.grad is None for p in model.parameters())
"""


def test_the_optimizer_in_backward():
    programs.run(["-c", IN_BACKWARD], check=True)
