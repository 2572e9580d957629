"""Lightning runs with our optimizers: the numbers of torch's in the same Trainer, and what it shows."""

from __future__ import annotations

import warnings

import pytest
import torch
from host_cases import assert_same_bits, assert_trails_agree, snapshot
from host_lightning import batches, lightning, module_class, trainer
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import cosine, warmup

pytestmark = pytest.mark.slow  # for the import alone

SCHEDULE = warmup(3) >> cosine(20, peak=0.05)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        yield


def ours(weights, **options):
    return ravine.optim.AdamW(weights, **{"lr": SCHEDULE, "clip_norm": 0.1, **options})


def each_step(optimizer, scheduler):
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


def torchs(weights):
    optimizer = torch.optim.AdamW(weights, lr=1.0)
    return each_step(optimizer, LambdaLR(optimizer, SCHEDULE))


def fitted(folder, configure, *, rows=160, module=None, loss=None, dtype=torch.float64, **options):
    made = (module or module_class())(configure, dtype=dtype, **({"loss": loss} if loss else {}))
    trainer(folder, **options).fit(made, batches(rows, dtype))
    return made


@pytest.fixture
def theirs(tmp_path):
    return fitted(tmp_path, torchs, loss=cross_entropy, gradient_clip_val=0.1)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_numbers_are_torchs(tmp_path, accumulation):
    options = {"accumulate_grad_batches": accumulation}
    theirs = fitted(tmp_path, torchs, loss=cross_entropy, gradient_clip_val=0.1, **options)
    mine = fitted(tmp_path, ours, **options)
    assert_trails_agree(mine.trail, theirs.trail, steps={1: 10, 3: 4}[accumulation])
    assert mine.rates == [SCHEDULE(k) for k in range(len(mine.rates))]


def test_our_schedule_in_their_slot_and_their_clipping_beside_ours(tmp_path, theirs):
    def configure(weights):
        optimizer = ours(weights, lr=1.0, clip_norm=0.2)  # theirs comes first, so ours rests
        return each_step(optimizer, LambdaLR(optimizer, SCHEDULE))

    mine = fitted(tmp_path, configure, gradient_clip_val=0.1)
    assert_trails_agree(mine.trail, theirs.trail, steps=10)


def test_their_hook_for_clipping_sees_the_gradient_that_we_clip(tmp_path, theirs):
    norms = []

    class Looking(module_class()):
        def configure_gradient_clipping(self, optimizer, **_):
            norms.append(optimizer.gradient_norm())

    mine = fitted(tmp_path, ours, module=Looking)
    assert_trails_agree(mine.trail, theirs.trail, steps=10)
    assert len(norms) == 10
    assert max(norms) > 0.1


@pytest.mark.parametrize("scheduler", [True, False], ids=["ScheduleLR", "nothing"])
def test_the_monitor_shows_the_schedule(tmp_path, scheduler):
    """Lightning looks before the batch; without a scheduler it sees the lr of the step before."""
    pl = lightning()

    class Log(pl.loggers.Logger):
        name, version = "log", 0

        def log_hyperparams(self, *args, **kwargs):
            pass

        def log_metrics(self, metrics, step):
            seen.append(metrics["lr-AdamW"])

    def configure(weights):
        optimizer = ours(weights)
        if not scheduler:
            return optimizer
        return each_step(optimizer, ravine.optim.ScheduleLR(optimizer))

    seen = []
    monitor = pl.callbacks.LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    made = fitted(tmp_path, configure, callbacks=[monitor], logger=Log(), log_every_n_steps=1)
    steps = range(10) if scheduler else [0, *range(9)]
    assert seen == [SCHEDULE(k) for k in steps]
    assert made.rates[-1] == SCHEDULE(10 if scheduler else 9)
    assert monitor.last_momentum_values == {"lr-AdamW-momentum": 0.9}
    assert monitor.last_weight_decay_values == {"lr-AdamW-weight_decay": 0.01}


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("slot", ["lr", "ScheduleLR", "LambdaLR"])
def test_saved_and_resumed_it_has_the_same_bits(tmp_path, slot, weights_only):
    def configure(weights):
        options = {"average": 0.9, "amsgrad": True}
        if slot == "LambdaLR":
            optimizer = ours(weights, lr=1.0, **options)
            return each_step(optimizer, LambdaLR(optimizer, SCHEDULE))
        optimizer = ours(weights, **options)
        if slot == "lr":
            return optimizer
        return each_step(optimizer, ravine.optim.ScheduleLR(optimizer))

    whole = fitted(tmp_path, configure, rows=80, max_epochs=2)
    first = module_class()(configure)
    running = trainer(tmp_path, max_epochs=1)
    running.fit(first, batches(80))
    running.save_checkpoint(tmp_path / "half.ckpt")
    second = module_class()(configure)
    trainer(tmp_path, max_epochs=2).fit(
        second, batches(80), ckpt_path=tmp_path / "half.ckpt", weights_only=weights_only
    )
    optimizers = [made.trainer.optimizers[0] for made in (second, whole)]
    assert second.trainer.global_step == 10
    assert_same_bits(snapshot(second.parameters()), snapshot(whole.parameters()))
    with optimizers[0].averaged(), optimizers[1].averaged():
        assert_same_bits(snapshot(second.parameters()), snapshot(whole.parameters()))
    assert optimizers[0].param_groups[0]["lr"] == SCHEDULE(9 if slot == "lr" else 10)


def test_bfloat16_in_lock_step(tmp_path):
    """The gradients of one run, through autocast, given to torch's optimizer as they are."""
    twins, trail = [], []

    class Noting(module_class()):
        def on_before_optimizer_step(self, optimizer):
            if not twins:
                twins[:] = [w.detach().clone().requires_grad_() for w in self.parameters()]
                self.twin = torch.optim.AdamW(twins, lr=1.0)
                self.scheduler = LambdaLR(self.twin, SCHEDULE)
            for w, v in zip(self.parameters(), twins, strict=True):
                v.grad = w.grad.clone()
            torch.nn.utils.clip_grad_norm_(twins, 0.1)
            self.twin.step()
            self.scheduler.step()
            trail.append(snapshot(twins))

    dtypes = set()

    def loss(logits, targets):
        dtypes.add(logits.dtype)
        return ravine.losses.cross_entropy(logits, targets)

    made = fitted(
        tmp_path, ours, module=Noting, loss=loss, dtype=torch.float32, precision="bf16-mixed"
    )
    assert dtypes == {torch.bfloat16}
    assert_trails_agree(made.trail, trail, steps=10, rtol=1e-5)


def test_a_schedule_of_theirs_beside_ours_is_refused(tmp_path):
    def configure(weights):
        optimizer = ours(weights)
        return each_step(optimizer, LambdaLR(optimizer, lambda step: 1.0))

    with pytest.raises(ArgumentError, match=r"takes ravine.optim.ScheduleLR"):
        fitted(tmp_path, configure)
