"""Optimizers that train at one point and are evaluated at another."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import ravine
from ravine.errors import EquationError, RavineError
from ravine.optim import SGD, ScheduleFreeAdamW, ScheduleFreeSGD
from ravine.optim.evaluation import EvaluatedOptimizer

CLASSES = [ScheduleFreeSGD, ScheduleFreeAdamW]


def trained(made, steps=10, dtype=torch.float64, **options):
    """Return weights, the optimizer, and the averages x of the paper, kept in plain torch."""
    generator = torch.Generator().manual_seed(4)
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3, 2), (), (4,))]
    ws = [torch.nn.Parameter(value.to(dtype)) for value in start]
    ws.append(torch.nn.Parameter(torch.ones(2, dtype=dtype)))  # never has a gradient
    optimizer = made(ws, lr=0.1, **options)
    xs = [w.detach().double().clone() for w in ws]
    for step in range(1, steps + 1):
        for w in ws[:3]:
            w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(dtype)
        optimizer.step()
        for k, w in enumerate(ws[:3]):  # lr is constant: every z weighs the same
            xs[k] += (optimizer.state[w]["z"].double() - xs[k]) / step
    return ws, optimizer, xs


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("made", CLASSES)
def test_eval_puts_the_average_of_z_in_place_and_train_takes_it_out(made, backend):
    ws, optimizer, xs = trained(made, backend=backend)
    ys = [w.detach().clone() for w in ws]
    for turn, want in ((optimizer.eval, xs), (optimizer.eval, xs), (optimizer.train, ys)) * 2:
        turn()
        for w, value in zip(ws, want, strict=True):
            torch.testing.assert_close(w.detach(), value, rtol=1e-12, atol=1e-13)
    assert torch.equal(ws[3].detach(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_turning_back_and_forth_does_not_wear_the_weights_down(dtype):
    ws, optimizer, _ = trained(ScheduleFreeSGD, dtype=dtype)
    before = [w.detach().clone() for w in ws]
    for _ in range(50):
        optimizer.eval()
        optimizer.train()
    for w, old in zip(ws, before, strict=True):
        torch.testing.assert_close(w.detach(), old, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("made", CLASSES)
def test_a_step_in_evaluation_is_refused_and_changes_nothing(made):
    ws, optimizer, _ = trained(made)
    optimizer.eval()
    before = [w.detach().clone() for w in ws]
    with pytest.raises(RavineError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "the weights are those to evaluate with\n"
        f"  where:    {made.__name__}.step, group 0\n"
        "  do:       call optimizer.train() before training goes on"
    )
    assert all(torch.equal(w, old) for w, old in zip(ws, before, strict=True))
    optimizer.train()
    optimizer.step()


@pytest.mark.parametrize("made", CLASSES)
@pytest.mark.parametrize("evaluating", [False, True])
def test_it_is_saved_and_goes_on_in_either_place(made, evaluating):
    ws, optimizer, _ = trained(made)
    if evaluating:
        optimizer.eval()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    vs = [torch.nn.Parameter(w.detach().clone()) for w in ws]
    other = made(vs, lr=5.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for one, weights in ((optimizer, ws), (other, vs)):
        one.train()
        for w in weights[:3]:
            w.grad = torch.ones_like(w)
        one.step()
    assert all(torch.equal(w, v) for w, v in zip(ws, vs, strict=True))


def test_averaged_gives_the_weights_back_bit_for_bit():
    ws, optimizer, xs = trained(ScheduleFreeAdamW, dtype=torch.float32)
    before = [w.detach().clone() for w in ws]
    with optimizer.averaged():
        for w, x in zip(ws, xs, strict=True):
            torch.testing.assert_close(w.detach(), x.float(), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(w, old) for w, old in zip(ws, before, strict=True))
    optimizer.step()
    optimizer.eval()
    kept = copy.deepcopy([w.detach() for w in ws])
    with optimizer.averaged():
        assert all(torch.equal(w, x) for w, x in zip(ws, kept, strict=True))
    assert all(torch.equal(w, x) for w, x in zip(ws, kept, strict=True))


def test_a_group_that_is_added_is_in_the_same_place():
    _, optimizer, _ = trained(ScheduleFreeSGD)
    optimizer.eval()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert [group["train_mode"] for group in optimizer.param_groups] == [False, False]


def test_only_rules_with_two_places_have_train_and_eval():
    assert not hasattr(SGD, "eval") and not hasattr(SGD, "train")
    assert not SGD([torch.nn.Parameter(torch.ones(1))]).averages


def test_a_person_may_write_such_a_rule():
    def out(w, c, *, lr):
        return w - c

    def back(w, c, *, lr):
        return w + c

    @ravine.update_rule(evaluation=(out, back))
    def counted(w, g, c, *, lr):
        return w - lr * g, c + 1

    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = counted([w], lr=1.0)
    w.grad = torch.ones(1)
    optimizer.step()
    optimizer.eval()
    assert w.item() == -2
    optimizer.train()
    assert w.item() == -1


def test_equations_of_other_names_are_refused():
    def out(w, unknown):
        return w - unknown

    with pytest.raises(EquationError, match="'out' reads unknown"):

        @ravine.update_rule(evaluation=(out, out))
        def rule(w, g, c, *, lr):
            return w - lr * g, c


def test_a_decay_beside_the_step_is_refused():
    w = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ravine.errors.ArgumentError, match="would leave their average behind"):
        ScheduleFreeSGD([w], weight_decay=0.1, decay="decoupled")


@pytest.mark.parametrize("made", [ScheduleFreeSGD, ScheduleFreeAdamW])
@pytest.mark.parametrize("options", [{"cautious": True}, {"l1": 0.1, "l1_proximal": True}])
def test_a_change_after_the_step_is_refused(made, options):
    w = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ravine.errors.ArgumentError) as caught:
        made([w], **options)
    (name,) = options.keys() - {"l1"}
    assert str(caught.value).startswith(
        f"{name} would leave the average of the weights behind\n"
        f"  where:    {made.__name__}, group 0\n  got:      {name}=True\n"
    )
    made([w], l1=0.1)
    made([w], l1_proximal=True)  # without l1 it means nothing


def test_momentum_of_zero_has_no_way_back():
    for made, options in (
        (ScheduleFreeSGD, {"momentum": 0.0}),
        (ScheduleFreeAdamW, {"betas": (0, 0.9)}),
    ):
        with pytest.raises(ravine.errors.ArgumentError):
            made([torch.nn.Parameter(torch.ones(1))], **options)


@pytest.mark.slow
def test_a_training_run_is_evaluated_at_the_average(monkeypatch):
    turned = []
    monkeypatch.setattr(
        ScheduleFreeSGD, "eval", lambda self: (turned.append(self), EvaluatedOptimizer.eval(self))
    )
    result = ravine.train("digits", optimizer="schedule_free_sgd(lr=0.5)", epochs=2, seed=0)
    assert len(turned) == 3  # after each epoch, and at the end
    assert result.metrics["valid/accuracy"] > 0.5
