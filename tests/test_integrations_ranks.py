"""All three over two processes: the weights of one, exact means over both, and how fast schedules go."""

from __future__ import annotations

import os
import tempfile
import warnings

import pytest
import test_integrations_transformers
import torch
from host_cases import assert_trails_agree, digits, perceptron, snapshot
from ranks import in_processes
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset

import ravine.losses
import ravine.optim
from ravine.schedules import cosine, warmup

SCHEDULE = warmup(3) >> cosine(20, peak=0.05)


def every_loop():
    """Return weights and lr after every step, of each loop."""
    # What torchrun says besides; the processes have met already, so the address is not used.
    os.environ |= {
        "LOCAL_RANK": os.environ["RANK"],
        "LOCAL_WORLD_SIZE": os.environ["WORLD_SIZE"],
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "OMP_NUM_THREADS": "1",
    }
    warnings.simplefilter("ignore")  # of Lightning, that a finished group is met again
    return {
        "accelerate": by_accelerate(theirs=False),
        "a prepared scheduler": by_accelerate(theirs=True),
        "trainer": by_trainer(),
        "lightning": by_lightning(),
    }


def by_accelerate(*, theirs):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = perceptron()
    lr = 1.0 if theirs else SCHEDULE
    optimizer = ravine.optim.AdamW(model.parameters(), lr=lr, clip_norm=0.1)
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


def by_lightning():
    from host_lightning import module_class, trainer
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    made = module_class()(lambda weights: ravine.optim.AdamW(weights, lr=SCHEDULE, clip_norm=0.1))
    rows = range(torch.distributed.get_rank(), 64, 2)
    trainer(
        tempfile.gettempdir(),
        strategy=DDPStrategy(cluster_environment=TorchElasticEnvironment()),
        devices=2,
        use_distributed_sampler=False,  # it shuffles
    ).fit(made, DataLoader(Subset(digits(64), rows), batch_size=8))
    return made.trail, made.rates


def by_trainer():
    with tempfile.TemporaryDirectory() as folder:
        options = {"per_device_train_batch_size": 2, "max_steps": 4}
        kept = test_integrations_transformers.by_us(folder, **options).run()
    return kept.trail, kept.logged("learning_rate")


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
def test_two_processes_have_the_weights_of_one_whatever_their_number_does_to_schedulers(tmp_path):
    results = in_processes(2, every_loop)
    of_digits = by_torch_alone()
    # Both see eight rows a step, in the order of the same seed, and each row has its own number of words.
    of_words = test_integrations_transformers.by_torch(tmp_path, max_steps=4).trail
    for result in results:
        for loop, expected in (
            ("accelerate", of_digits),
            ("lightning", of_digits),
            ("trainer", of_words),
        ):
            trail, rates = result[loop]
            assert_trails_agree(trail, expected, steps=4)
            assert rates == [SCHEDULE(k) for k in range(4)]
        # Accelerate steps a prepared scheduler once for each process.
        assert result["a prepared scheduler"][1] == [SCHEDULE(2 * k) for k in range(4)]
