"""Lightning's other ways to step: by hand, averaged by its callbacks, scaled, inside of backward."""

from __future__ import annotations

import copy
import pickle
import warnings
from itertools import pairwise

import pytest
import torch
from host_cases import assert_same_bits, assert_trails_agree, perceptron, snapshot
from host_lightning import batches, lightning, module_class, trainer
from torch.nn.functional import cross_entropy

import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import plateau, warmup

pytestmark = pytest.mark.slow  # for the import alone


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        yield


def adamw(library, **options):
    return lambda weights: library.AdamW(weights, **{"lr": 0.01, **options})


def fitted(folder, configure, module=None, *, dtype=torch.float64, **options):
    made = (module or module_class())(configure, dtype=dtype)
    trainer(folder, **options).fit(made, batches(dtype=dtype))
    return made


def by_hand():
    class ByHand(module_class()):
        """Two optimizers, one with a closure, each for half of the weights, as for a GAN."""

        def __init__(self, configure, **options):
            super().__init__(configure, **options)
            self.automatic_optimization = False

        def configure_optimizers(self):
            return [self.configure(part.parameters()) for part in (self.net[0], self.net[2])]

        def training_step(self, batch, number):
            inputs, targets = batch
            first, second = self.optimizers()

            def closure():
                first.zero_grad()
                loss = cross_entropy(self.net(inputs), targets)
                self.manual_backward(loss)
                return loss

            with first.toggle_model():
                assert not any(w.requires_grad for w in self.net[2].parameters())
                first.step(closure)
            with second.toggle_model():
                second.zero_grad()
                self.manual_backward(cross_entropy(self.net(inputs), targets))
                second.step()
            self.trail.append(snapshot(self.net.parameters()))

        def on_train_batch_end(self, *args):
            pass

    return ByHand


def test_stepped_by_hand_with_and_without_a_closure(tmp_path):
    mine = fitted(tmp_path, adamw(ravine.optim), by_hand())
    theirs = fitted(tmp_path, adamw(torch.optim), by_hand())
    assert_trails_agree(mine.trail, theirs.trail, steps=10)


def test_a_closure_that_skips_its_batch_leaves_all_as_it_is(tmp_path):
    class Skipping(module_class()):
        def training_step(self, batch, number):
            loss = super().training_step(batch, number)
            return None if number % 3 == 1 else loss

    mine = fitted(tmp_path, adamw(ravine.optim), Skipping)
    theirs = fitted(tmp_path, adamw(torch.optim), Skipping)
    for ours, other in zip(mine.trail, theirs.trail, strict=True):
        for w, v in zip(ours, other, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)
    assert all(map(torch.equal, mine.trail[0], mine.trail[1]))


@pytest.mark.parametrize("callback", ["StochasticWeightAveraging", "EMAWeightAveraging"])
def test_their_averages_of_our_weights(tmp_path, callback):
    made = []
    for library in (ravine.optim, torch.optim):
        options = {"swa_lrs": 0.02, "swa_epoch_start": 2, "annealing_epochs": 1}
        average = getattr(lightning().callbacks, callback)(
            **(options if callback.startswith("Stochastic") else {"decay": 0.9})
        )
        made.append(fitted(tmp_path, adamw(library), callbacks=[average], max_epochs=4))
    mine, theirs = made
    assert_trails_agree(mine.trail, theirs.trail, steps=40)
    assert mine.rates == theirs.rates
    assert not all(map(torch.equal, mine.parameters(), mine.trail[-1]))
    for w, v in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)


def test_a_schedule_of_ours_cannot_be_annealed_by_their_callback(tmp_path):
    callback = lightning().callbacks.StochasticWeightAveraging(swa_lrs=0.02, swa_epoch_start=1)
    with pytest.raises(ArgumentError, match="two schedules set the learning rate"):
        fitted(
            tmp_path,
            adamw(ravine.optim, lr=warmup(3) >> 0.1),
            callbacks=[callback],
            max_epochs=3,
        )


def half_precision(scale):
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return MixedPrecision("16-mixed", "cpu", scaler)


def test_float16_with_a_scaler_leaves_out_what_overflows(tmp_path):
    plugin = half_precision(2.0**20)
    made = fitted(
        tmp_path,
        adamw(ravine.optim, clip_norm=0.1, lr=warmup(9) >> 0.1),
        dtype=torch.float32,
        plugins=plugin,
        precision=None,
    )
    optimizer = made.trainer.optimizers[0]
    halvings = 20 - torch.tensor(plugin.scaler.get_scale()).log2().int().item()
    assert 0 < halvings < 10
    assert optimizer.skipped_steps == halvings
    trail = [snapshot(perceptron(torch.float32).parameters()), *made.trail]
    still = [all(map(torch.equal, *pair)) for pair in pairwise(trail)]
    assert still.count(True) == halvings
    assert made.rates[-1] == pytest.approx(0.1 * (10 - halvings) / 9)


def test_their_clipping_under_a_scaler_says_what_it_says_to_torchs_fused_optimizers(tmp_path):
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        fitted(
            tmp_path,
            adamw(ravine.optim),
            dtype=torch.float32,
            plugins=half_precision(2.0),
            precision=None,
            gradient_clip_val=0.1,
        )


def test_stepped_inside_of_backward(tmp_path):
    mine = fitted(tmp_path, adamw(ravine.optim, in_backward=True))
    theirs = fitted(tmp_path, adamw(torch.optim))
    assert_trails_agree(mine.trail, theirs.trail, steps=10)


def test_what_lightning_wraps_has_all_that_ours_has(tmp_path):
    class Asking(module_class()):
        def on_train_batch_end(self, outputs, batch, number):
            optimizer = self.optimizers()
            assert type(optimizer).__name__ == "LightningScheduleFreeAdamW"
            before = snapshot(self.net.parameters())
            with optimizer.averaged():
                averaged = snapshot(self.net.parameters())
            optimizer.eval()
            assert_same_bits(averaged, snapshot(self.net.parameters()))
            optimizer.train()
            for w, v in zip(self.net.parameters(), before, strict=True):
                torch.testing.assert_close(w.detach(), v)
            if number > 0:
                assert not torch.equal(averaged[0], before[0])
            optimizer.observe(1.0)
            assert optimizer.gradient_norm() > 0
            assert optimizer.skipped_steps == 0
            assert "cpu kernel" in optimizer.explain()
            rates.append(optimizer.param_groups[0]["lr"])

    rates = []

    def configure(weights):
        lr = plateau(0.01, factor=0.5, patience=2)
        return ravine.optim.ScheduleFreeAdamW(weights, lr=lr)

    fitted(tmp_path, configure, Asking)
    assert rates == [0.01] * 4 + [0.005] * 3 + [0.0025] * 3


def test_an_optimizer_of_a_finished_run_is_copied_and_pickled(tmp_path):
    made = fitted(tmp_path, adamw(ravine.optim, lr=warmup(20) >> 0.1, clip_norm=0.1))
    pair = made.net, made.trainer.optimizers[0]
    trails = []
    for net, optimizer in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair)), pair):
        optimizer.zero_grad()
        for inputs, targets in batches():
            cross_entropy(net(inputs), targets).backward()
            optimizer.step()
        trails.append(snapshot(net.parameters()))
    assert_same_bits(trails[0], trails[2])
    assert_same_bits(trails[1], trails[2])


def test_their_range_test_drives_our_lr(tmp_path):
    from lightning.pytorch.tuner import Tuner

    found = []
    for library in (ravine.optim, torch.optim):
        made = module_class()(None)
        made.lr = 0.01
        made.configure = lambda weights, made=made, library=library: library.AdamW(
            weights, lr=made.lr
        )
        result = Tuner(trainer(tmp_path)).lr_find(made, batches(), num_training=20)
        found.append(result.results)
    assert found[0]["lr"] == found[1]["lr"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-9)
