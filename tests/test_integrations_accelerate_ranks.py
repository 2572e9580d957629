"""Accelerate over two processes: the weights of one, and how fast schedules go there."""

from __future__ import annotations

import os

import pytest
import torch
from host_cases import assert_trails_agree, digits, perceptron, snapshot
from ranks import in_processes
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import ravine.losses
import ravine.optim
from ravine.schedules import cosine, warmup

SCHEDULE = warmup(3) >> cosine(20, peak=0.05)


def both_ways():
    """Return weights and lr after every step, with the schedule as lr and then as theirs."""
    # What torchrun says besides; the processes have met already, so the address is not used.
    os.environ |= {
        "LOCAL_RANK": os.environ["RANK"],
        "LOCAL_WORLD_SIZE": os.environ["WORLD_SIZE"],
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "OMP_NUM_THREADS": "1",
    }
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    return trained(accelerator, theirs=False), trained(accelerator, theirs=True)


def trained(accelerator, *, theirs):
    model = perceptron()
    optimizer = ravine.optim.AdamW(
        model.parameters(), lr=1.0 if theirs else SCHEDULE, clip_norm=0.1
    )
    scheduler = accelerator.prepare(LambdaLR(optimizer, SCHEDULE)) if theirs else None
    model, optimizer, batches = accelerator.prepare(
        model, optimizer, DataLoader(digits(64), batch_size=8)
    )
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
    trail, rates = [], []
    for inputs, targets in batches:
        accelerator.backward(ravine.losses.cross_entropy(model(inputs), targets))
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        trail.append(snapshot(model.parameters()))
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
    return trail, rates


def by_torch_alone():
    """The same on one process, in a plain loop with torch's parts."""
    model, trail = perceptron(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    scheduler = LambdaLR(optimizer, SCHEDULE)
    for inputs, targets in DataLoader(digits(64), batch_size=16):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        trail.append(snapshot(model.parameters()))
    return trail


@pytest.mark.slow
def test_two_processes_have_the_weights_of_one_whatever_their_number_does_to_schedulers():
    expected = by_torch_alone()
    for (trail, rates), (_, of_theirs) in in_processes(2, both_ways):
        assert_trails_agree(trail, expected, steps=4)
        assert rates == [SCHEDULE(k) for k in range(4)]
        # Accelerate steps a prepared scheduler once for each process.
        assert of_theirs == [SCHEDULE(2 * k) for k in range(4)]
