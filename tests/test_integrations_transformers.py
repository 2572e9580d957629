"""The Trainer of Hugging Face runs with our parts: torch's numbers, exact means, the same bits again."""

from __future__ import annotations

import pytest
import torch
from host_cases import assert_same_bits, assert_trails_agree, snapshot
from host_transformers import Kept, model, transformers
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

import ravine.losses
import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import cosine, warmup

pytestmark = pytest.mark.slow  # for the import alone

SCHEDULE = warmup(3) >> cosine(20, peak=0.05)
# The bias of attention's keys has a gradient of rounding noise, which a smaller eps would enlarge.
EPS = 1e-4


def our_loss(outputs, labels, num_items_in_batch=None):
    return ravine.losses.cross_entropy(
        outputs.logits[:, :-1], labels[:, 1:], normalizer=num_items_in_batch
    )


def torchs_loss(outputs, labels, num_items_in_batch):
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return cross_entropy(logits, targets, reduction="sum") / num_items_in_batch


def by_torch(folder, scheduler=LambdaLR, **options):
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.1, eps=EPS)
    return Kept(
        folder,
        network,
        optimizers=(optimizer, scheduler(optimizer, SCHEDULE)),
        **{"max_grad_norm": 0.1, "compute_loss_func": torchs_loss, **options},
    ).run()


def by_us(folder, slot="ScheduleLR", network=None, **options):
    network = model() if network is None else network
    lr = SCHEDULE if slot == "ScheduleLR" else 1.0
    of_ours = {"clip_norm": 0.1, "weight_decay": 0.1, "eps": EPS, **options.pop("of_ours", {})}
    optimizer = ravine.optim.AdamW(network.parameters(), **{"lr": lr, **of_ours})
    scheduler = (
        ravine.optim.ScheduleLR(optimizer)
        if slot == "ScheduleLR"
        else LambdaLR(optimizer, SCHEDULE)
    )
    return Kept(
        folder,
        network,
        optimizers=(optimizer, scheduler),
        **{"compute_loss_func": our_loss, **options},
    )


@pytest.mark.parametrize("slot", ["ScheduleLR", "LambdaLR"])
def test_the_numbers_are_torchs(tmp_path, slot):
    theirs = by_torch(tmp_path)
    mine = by_us(tmp_path, slot).run()
    assert_trails_agree(mine.trail, theirs.trail, steps=8)
    assert mine.logged("learning_rate") == [SCHEDULE(k) for k in range(8)]
    assert mine.logged("learning_rate") == theirs.logged("learning_rate")
    assert mine.logged("grad_norm") == pytest.approx(theirs.logged("grad_norm"), rel=1e-9)
    assert mine.logged("loss") == pytest.approx(theirs.logged("loss"), rel=1e-9)


def test_their_clipping_beside_ours(tmp_path):
    theirs = by_torch(tmp_path)
    mine = by_us(tmp_path, of_ours={"clip_norm": 0.2}, max_grad_norm=0.1).run()
    assert_trails_agree(mine.trail, theirs.trail, steps=8)


def test_the_mean_over_a_step_is_that_of_one_large_batch(tmp_path):
    """Without num_items_in_batch it would be a mean of means of 24 to 34 tokens."""
    parts = by_us(tmp_path).run()
    whole = by_us(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=1).run()
    assert_trails_agree(parts.trail, whole.trail, steps=8)
    unequal = by_us(
        tmp_path,
        compute_loss_func=lambda o, t, num_items_in_batch: our_loss(o, t) / 2,
    ).run()
    assert not torch.allclose(unequal.trail[-1][0], whole.trail[-1][0], rtol=1e-4)


def without_logits():
    class GPT2WithoutLogits(transformers().GPT2LMHeadModel):
        def forward(self, input_ids, labels=None, num_items_in_batch=None, **kwargs):
            hidden = self.transformer(input_ids).last_hidden_state
            loss = ravine.losses.linear_cross_entropy(
                hidden[:, :-1], self.lm_head.weight, labels[:, 1:], normalizer=num_items_in_batch
            )
            return {"loss": loss}

    other = model()
    other.__class__ = GPT2WithoutLogits
    return other


def test_the_loss_without_logits_in_the_models_forward(tmp_path):
    theirs = by_torch(tmp_path)
    mine = by_us(tmp_path, network=without_logits(), compute_loss_func=None).run()
    assert_trails_agree(mine.trail, theirs.trail, steps=8)
    assert mine.trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("kind", ["cosine", "constant_with_warmup"])
def test_the_trainer_makes_the_optimizer_and_its_scheduler(tmp_path, kind):
    """Its groups, with and without weight decay, its lr, its scheduler."""
    runs = []
    for library, clip in ((ravine.optim, {"clip_norm": 0.1}), (torch.optim, {})):
        runs.append(
            Kept(
                tmp_path,
                optimizer_cls_and_kwargs=(library.AdamW, {"lr": 0.02, "eps": EPS, **clip}),
                compute_loss_func=our_loss,
                weight_decay=0.3,
                lr_scheduler_type=kind,
                warmup_steps=2,
                max_grad_norm=0.0 if clip else 0.1,
            ).run()
        )
    mine, theirs = runs
    decays = [group["weight_decay"] for group in mine.trainer.optimizer.param_groups]
    assert decays == [0.3, 0.0]
    assert_trails_agree(mine.trail, theirs.trail, steps=8)
    assert mine.logged("learning_rate") == theirs.logged("learning_rate")


def test_a_schedule_needs_a_scheduler_that_shows_it(tmp_path):
    """The Trainer makes a scheduler if it is given none; which one should set lr is then open."""
    for how in ("optimizers", "optimizer_cls_and_kwargs"):
        network = model()
        given = {
            "optimizers": (ravine.optim.AdamW(network.parameters(), lr=SCHEDULE), None),
            "optimizer_cls_and_kwargs": (ravine.optim.AdamW, {"lr": SCHEDULE}),
        }[how]
        with pytest.raises(ArgumentError, match=r"takes ravine.optim.ScheduleLR\(optimizer\)"):
            Kept(tmp_path, network, compute_loss_func=our_loss, **{how: given}).run()


def test_a_trainer_that_makes_the_optimizer_and_shows_its_schedule(tmp_path):
    def create_scheduler(num_training_steps, optimizer=None):
        kept.trainer.lr_scheduler = ravine.optim.ScheduleLR(kept.trainer.optimizer)
        return kept.trainer.lr_scheduler

    options = {"lr": SCHEDULE, "clip_norm": 0.1, "eps": EPS}
    kept = Kept(
        tmp_path,
        optimizer_cls_and_kwargs=(ravine.optim.AdamW, options),
        compute_loss_func=our_loss,
        weight_decay=0.0,
    )
    kept.trainer.create_scheduler = create_scheduler
    kept.run()
    other = by_us(tmp_path, of_ours={"weight_decay": 0.0}).run()
    assert_trails_agree(kept.trail, other.trail, steps=8)
    assert kept.logged("learning_rate") == [SCHEDULE(k) for k in range(8)]


@pytest.mark.parametrize("slot", ["ScheduleLR", "LambdaLR"])
def test_saved_and_resumed_it_has_the_same_bits(tmp_path, slot):
    """With dropout, so that the Trainer's random states count too; in the middle of an epoch."""
    of_ours = {"average": 0.9, "amsgrad": True}
    whole = by_us(tmp_path / "whole", slot, model(dropout=0.1), of_ours=of_ours).run()
    saving = {"save_strategy": "steps", "save_steps": 5}
    by_us(tmp_path / "half", slot, model(dropout=0.1), of_ours=of_ours, **saving).run()
    second = by_us(tmp_path / "half", slot, model(dropout=0.1), of_ours=of_ours)
    second.run(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-5"))
    assert len(second.trail) == 3
    assert_same_bits(second.trail[-1], whole.trail[-1])
    with (
        second.trainer.optimizer.optimizer.averaged(),
        whole.trainer.optimizer.optimizer.averaged(),
    ):
        assert_same_bits(snapshot(second.model.parameters()), snapshot(whole.model.parameters()))
    assert second.logged("learning_rate") == [SCHEDULE(k) for k in range(8)]


def test_bfloat16_in_lock_step(tmp_path):
    """The gradients of one run, through autocast, given to torch's optimizer as they are."""
    network, trail = model(torch.float32), []
    twins = [w.detach().clone().requires_grad_() for w in network.parameters()]
    twin = torch.optim.AdamW(twins, lr=1.0, weight_decay=0.1, eps=EPS)
    scheduler = LambdaLR(twin, SCHEDULE)

    class Noting(transformers().TrainerCallback):
        def on_pre_optimizer_step(self, *args, **kwargs):
            for w, v in zip(network.parameters(), twins, strict=True):
                v.grad = w.grad.clone()
            torch.nn.utils.clip_grad_norm_(twins, 0.1)
            twin.step()
            scheduler.step()
            trail.append(snapshot(twins))

    mine = by_us(tmp_path, network=network, bf16=True, callbacks=[Noting()]).run()
    assert_trails_agree(mine.trail, trail, steps=8, rtol=1e-5)
    exact = by_us(tmp_path, network=model(torch.float32)).run()
    assert not torch.equal(exact.trail[0][0], mine.trail[0][0])


def schedule_free(folder):
    network = model()
    optimizer = ravine.optim.ScheduleFreeAdamW(network.parameters(), lr=0.02)
    return Kept(
        folder,
        network,
        optimizers=(optimizer, LambdaLR(optimizer, lambda step: 1.0)),
        compute_loss_func=our_loss,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
    )


def test_schedule_free_is_turned_for_every_evaluation_and_saved_as_evaluated(tmp_path):
    """The Trainer calls train() and eval() of the optimizer itself."""
    kept = schedule_free(tmp_path).run()
    losses = kept.logged("eval_loss")
    assert losses[1] < losses[0]
    assert not kept.trainer.optimizer.param_groups[0]["train_mode"]
    first = str(tmp_path / "checkpoint-4")
    saved = Kept(
        tmp_path, type(kept.model).from_pretrained(first).double(), compute_loss_func=our_loss
    )
    assert saved.trainer.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-9)
    resumed = schedule_free(tmp_path).run(resume_from_checkpoint=first)
    assert_same_bits(resumed.trail[-1], kept.trail[-1])
    trained = snapshot(kept.model.parameters())
    kept.trainer.optimizer.train()
    assert not all(map(torch.equal, trained, kept.model.parameters()))
