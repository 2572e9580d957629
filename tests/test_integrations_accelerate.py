"""Accelerate runs with our optimizers: the numbers of torch's in the same loop, and the same bits again."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from host_cases import assert_same_bits, assert_trails_agree, digits, perceptron, snapshot
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import ravine.losses
import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import cosine, warmup

SCHEDULE = warmup(3) >> cosine(20, peak=0.05)


@pytest.fixture(autouse=True)
def _alone():
    """Accelerate keeps its state in the process; each test has its own."""
    as_in_a_new_process()
    yield
    as_in_a_new_process()


def as_in_a_new_process():
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def accelerator(**options):
    from accelerate import Accelerator

    return Accelerator(cpu=True, **options)


class Loop:
    """The loop that Accelerate's guide shows, on digits."""

    def __init__(self, make, *, clip=None, dtype=torch.float64, scheduler=None, **options):
        self.accelerator = accelerator(**options)
        model = perceptron(dtype)
        optimizer = make(model.parameters())
        self.scheduler = scheduler and self.accelerator.prepare(scheduler(optimizer))
        batches = DataLoader(digits(160, dtype), batch_size=16)
        self.model, self.optimizer, self.batches = self.accelerator.prepare(
            model, optimizer, batches
        )
        self.clip = clip
        self.trail, self.rates = [], []

    def run(self, loss=torch.nn.functional.cross_entropy, batches=None):
        for inputs, targets in self.batches if batches is None else batches:
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(loss(self.model(inputs), targets))
                if self.clip is not None and self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
                self.optimizer.step()
                if self.accelerator.sync_gradients:
                    self.rates.append(self.optimizer.param_groups[0]["lr"])
                    self.trail.append(snapshot(self.model.parameters()))
                if self.scheduler is not None:
                    self.scheduler.step()
                self.optimizer.zero_grad()
        return self


def ours(weights, **options):
    return ravine.optim.AdamW(weights, **{"lr": SCHEDULE, "clip_norm": 0.1, **options})


def torchs(weights):
    return torch.optim.AdamW(weights, lr=1.0)


def with_schedule(optimizer):
    return LambdaLR(optimizer, SCHEDULE)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_numbers_are_torchs(accumulation):
    options = {"gradient_accumulation_steps": accumulation}
    theirs = Loop(torchs, clip=0.1, scheduler=with_schedule, **options).run()
    mine = Loop(ours, **options).run(ravine.losses.cross_entropy)
    assert_trails_agree(mine.trail, theirs.trail, steps={1: 10, 3: 4}[accumulation])
    assert mine.rates == theirs.rates == [SCHEDULE(k) for k in range(len(mine.rates))]


def test_our_schedule_in_their_slot_and_their_clipping_beside_ours():
    def make(weights):
        return ours(weights, lr=1.0, clip_norm=0.2)  # theirs, at 0.1, comes first: ours rests

    theirs = Loop(torchs, clip=0.1, scheduler=with_schedule).run()
    mine = Loop(make, clip=0.1, scheduler=with_schedule).run()
    assert_trails_agree(mine.trail, theirs.trail, steps=10)
    shown = Loop(ours, scheduler=ravine.optim.ScheduleLR).run()
    assert_trails_agree(shown.trail, theirs.trail, steps=10)


def test_bfloat16_in_lock_step():
    """The gradients of one run, through autocast, given to torch's optimizer as they are."""
    loop = Loop(lambda w: ours(w, clip_norm=None), dtype=torch.float32, mixed_precision="bf16")
    twins = [w.detach().clone().requires_grad_() for w in loop.model.parameters()]
    twin = torch.optim.AdamW(twins, lr=1.0)
    scheduler = with_schedule(twin)
    seen = set()

    def loss(logits, targets):
        seen.add(logits.dtype)
        return ravine.losses.cross_entropy(logits, targets)

    def note(optimizer, args, kwargs):
        for w, v in zip(loop.model.parameters(), twins, strict=True):
            v.grad = w.grad.clone()
        twin.step()
        scheduler.step()
        trail.append(snapshot(twins))

    trail = []
    loop.optimizer.optimizer.register_step_pre_hook(note)
    loop.run(loss)
    assert loop.model(torch.zeros(1, 64)).dtype == torch.float32  # accelerate turns outputs back
    assert seen == {torch.float32}
    assert_trails_agree(loop.trail, trail, steps=10, rtol=1e-5)


@pytest.mark.parametrize("scheduler", [None, ravine.optim.ScheduleLR, with_schedule])
def test_saved_and_resumed_it_has_the_same_bits(tmp_path, scheduler):
    def make(weights):
        lr = 1.0 if scheduler is with_schedule else SCHEDULE
        return ours(weights, lr=lr, average=0.9, amsgrad=True)

    whole = Loop(make, scheduler=scheduler).run()
    first = Loop(make, scheduler=scheduler)
    first.run(batches=list(first.batches)[:5])
    first.accelerator.save_state(str(tmp_path / "state"))
    as_in_a_new_process()
    second = Loop(make, scheduler=scheduler)
    second.accelerator.load_state(str(tmp_path / "state"))
    second.run(batches=list(second.batches)[5:])
    assert_same_bits(second.trail[-1], whole.trail[-1])
    with second.optimizer.optimizer.averaged(), whole.optimizer.optimizer.averaged():
        assert_same_bits([*second.model.parameters()], [*whole.model.parameters()])
    assert second.rates == [SCHEDULE(k) for k in range(5, 10)]


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("rule", [ours, torchs], ids=["ours", "torch"])
def test_a_step_that_the_scaler_leaves_out_is_reported(rule, clip):
    """Accelerate asks by `step_was_skipped`, and leaves its scheduler's step out then too."""
    from accelerate.optimizer import AcceleratedOptimizer

    loop = Loop(rule, dtype=torch.float32, clip=clip)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    loop.accelerator.scaler = scaler
    loop.optimizer = AcceleratedOptimizer(loop.optimizer.optimizer, scaler=scaler)
    loop.accelerator._optimizers = [loop.optimizer]
    batches, skipped = list(loop.batches), []
    for k in range(5):
        before = snapshot(loop.model.parameters())
        infinite = k in (1, 3)
        factor = float("inf") if infinite else 1.0

        def loss(logits, targets, factor=factor):
            return ravine.losses.cross_entropy(logits, targets) * factor

        loop.run(loss, batches=[batches[k]])
        skipped.append(loop.optimizer.step_was_skipped)
        same = all(map(torch.equal, before, loop.model.parameters()))
        assert same == infinite
    assert skipped == [False, True, False, True, False]
    assert scaler.get_scale() == 2.0**6
    if rule is ours:
        assert loop.rates[-1] == SCHEDULE(2)


def test_a_scaler_changes_no_number_but_by_rounding():
    from accelerate.optimizer import AcceleratedOptimizer

    plain = Loop(ours).run()
    scaled = Loop(ours)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled.accelerator.scaler = scaler
    scaled.optimizer = AcceleratedOptimizer(scaled.optimizer.optimizer, scaler=scaler)
    scaled.run()
    assert_trails_agree(scaled.trail, plain.trail, steps=10)


def test_a_wrapped_optimizer_is_copied_and_pickled():
    loop = Loop(ours)
    loop.run(batches=list(loop.batches)[:5])
    for copied in (
        copy.deepcopy((loop.model, loop.optimizer)),
        pickle.loads(pickle.dumps((loop.model, loop.optimizer))),
    ):
        other = Loop(ours)
        other.model, other.optimizer = copied
        other.run(batches=list(other.batches)[5:])
        whole = Loop(ours).run()
        assert_same_bits(other.trail[-1], whole.trail[-1])


def test_the_wrapper_turns_schedule_free_weights():
    loop = Loop(lambda weights: ravine.optim.ScheduleFreeAdamW(weights, lr=0.05)).run()
    trained = snapshot(loop.model.parameters())
    loop.optimizer.eval()
    assert not all(map(torch.equal, trained, loop.model.parameters()))
    loop.optimizer.train()
    for w, v in zip(loop.model.parameters(), trained, strict=True):
        torch.testing.assert_close(w.detach(), v)


def test_a_schedule_of_theirs_beside_ours_is_refused():
    loop = Loop(ours, scheduler=lambda optimizer: LambdaLR(optimizer, lambda k: 1.0))
    with warnings.catch_warnings(), pytest.raises(ArgumentError, match=r"ravine.optim.ScheduleLR"):
        loop.run()
