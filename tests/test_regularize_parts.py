"""Penalties, clipping, early stopping, and the expressions that name regularisers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import ravine.optim
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExpressionError,
    NonFiniteError,
    UnknownNameError,
)
from ravine.expression import parse
from ravine.regularize import (
    REGULARIZERS,
    Dropout,
    EarlyStopping,
    Regularizer,
    clip_norm_,
    clip_value_,
    l1,
    l2,
    soft_threshold_,
)

# --- penalties -----------------------------------------------------------------------------------


def test_values_and_gradients():
    w = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    a, b = l1([w, v], 0.5), l2([w, v], 0.5)
    assert (a.item(), b.item()) == (3.0, 7.0)
    assert torch.autograd.grad(a, w)[0].tolist() == [0.5, -0.5, 0.0]
    assert torch.autograd.grad(b, [w, v])[0].tolist() == [1.0, -2.0, 0.0]
    z = torch.tensor([3 + 4j], requires_grad=True)
    assert (l1(z, 1.0).item(), l2(z, 1.0).item()) == (5.0, 25.0)


def test_a_models_biases_and_norms_are_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)).double()
    model[1].weight.data.fill_(100.0)
    weight = model[0].weight.detach()
    assert l1(model, 2.0).item() == pytest.approx(2 * float(weight.abs().sum()), rel=1e-15)
    assert l2(model, 2.0).item() == pytest.approx(2 * float((weight**2).sum()), rel=1e-15)
    assert l2(list(model.parameters()), 2.0).item() > 30_000


def test_half_weights_are_summed_in_float32():
    w = torch.full((3000,), 10.0, dtype=torch.float16)
    assert l2(w, 1.0).item() == 300_000.0
    assert l2(w, 1.0).dtype == torch.float32


def test_l2_in_the_loss_is_l2_of_our_optimizer():
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(5, dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    theirs = torch.optim.Adam([a], lr=0.1)
    ours = ravine.optim.Adam([b], lr=0.1, l2=0.3, l1=0.2)
    for _ in range(5):
        theirs.zero_grad()
        ours.zero_grad()
        (a.cos().sum() + l2(a, 0.3) + l1(a, 0.2)).backward()
        b.cos().sum().backward()
        theirs.step()
        ours.step()
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_soft_threshold_is_our_optimizers_proximal_step():
    a = nn.Parameter(torch.tensor([0.05, -0.05, 2.0, -2.0, 0.1], dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    soft_threshold_([a], 0.5, lr=0.2)
    b.grad = torch.zeros_like(b)
    ravine.optim.GradientDescent([b], lr=0.2, l1=0.5, l1_proximal=True).step()
    assert torch.equal(a, b)
    assert a.tolist()[:2] == [0.0, 0.0]
    assert math.copysign(1, a[1].item()) == 1


def test_penalties_refuse():
    with pytest.raises(ArgumentError, match="l1: strength"):
        l1(torch.ones(1), -1.0)
    with pytest.raises(ArgumentError, match=r"(?s)no weights.*give a list"):
        l2(iter([]), 1.0)
    with pytest.raises(ArgumentError, match="describe_groups"):
        l2(nn.ReLU(), 1.0)
    with pytest.raises(ArgumentTypeError, match=r"(?s)not a parameter.*named_parameters"):
        l2(nn.Linear(1, 1).named_parameters(), 1.0)


# --- clipping ------------------------------------------------------------------------------------


def with_gradients(dtype: torch.dtype, scale: float = 1.0) -> list[nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(100, 70), (3,), (), (0,), (2, 3, 4)]
    weights = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for weight in weights[:-1]:
        weight.grad = (torch.randn(weight.shape) * scale).to(dtype)
    return weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_norm", [0.1, 10.0, 1e6])
def test_norm_clipping_gives_torchs_numbers(dtype, max_norm):
    ours, theirs = with_gradients(dtype), with_gradients(dtype)
    for _ in range(2):  # the second time with a held launch
        a = clip_norm_(ours, max_norm)
        b = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(a, b, rtol=tolerance, atol=0)
        for x, y in zip(ours[:-1], theirs[:-1], strict=True):
            torch.testing.assert_close(x.grad, y.grad, rtol=tolerance, atol=0)
    assert ours[-1].grad is None


def test_norm_clipping_of_hard_gradients():
    half = with_gradients(torch.float16, 100.0)
    exact = math.sqrt(sum(float(w.grad.double().square().sum()) for w in half[:-1]))
    assert clip_norm_(half, 1.0).item() == pytest.approx(exact, rel=1e-3)
    assert torch.isfinite(half[0].grad).all()

    strided = nn.Parameter(torch.zeros(4, 4))
    strided.grad = torch.ones(4, 8)[:, ::2]
    assert clip_norm_(strided, 2.0).item() == 4.0
    torch.testing.assert_close(strided.grad, torch.full((4, 4), 0.5), rtol=1e-6, atol=0)

    bad = with_gradients(torch.float32)
    bad[1].grad[0] = math.inf
    kept = [w.grad.clone() for w in bad[:-1]]
    with pytest.raises(NonFiniteError, match="norm of the gradient"):
        clip_norm_(bad, 1.0, error_if_nonfinite=True)
    assert all(torch.equal(w.grad, g) for w, g in zip(bad[:-1], kept, strict=True))
    other = copy.deepcopy(bad)
    for w, v in zip(bad[:-1], other[:-1], strict=True):
        v.grad = w.grad.clone()
    clip_norm_(bad, 1.0)
    torch.nn.utils.clip_grad_norm_(other, 1.0)
    for w, v in zip(bad[:-1], other[:-1], strict=True):
        torch.testing.assert_close(w.grad, v.grad, equal_nan=True)
    assert clip_norm_([nn.Parameter(torch.ones(2))], 1.0).item() == 0.0


def test_value_clipping():
    model = nn.Linear(3, 1)
    model.weight.grad = torch.tensor([[2.0, -2.0, 0.1]])
    clip_value_(model, 0.5)
    assert model.weight.grad.tolist() == [[0.5, -0.5, pytest.approx(0.1)]]
    for function in (clip_norm_, clip_value_):
        with pytest.raises(ArgumentError, match="> 0"):
            function(model, 0.0)


# --- early stopping ------------------------------------------------------------------------------


def feed(stopper: EarlyStopping, values: list[float]) -> list[bool]:
    return [stopper.observe({stopper.metric: value}) for value in values]


def test_patience_and_the_best():
    stopper = EarlyStopping(patience=2, restore_best=False)
    assert feed(stopper, [3, 2, 2, 1.5, 1.6, 1.7]) == [False] * 5 + [True]
    assert (stopper.best, stopper.best_epoch, stopper.epoch) == (1.5, 4, 6)
    assert stopper.message == ("valid/loss has not improved for 2 epochs: best 1.5 at epoch 4")
    rising = EarlyStopping(patience=1, metric="valid/accuracy", restore_best=False)
    assert feed(rising, [0.1, 0.2, 0.2]) == [False, False, True]
    assert rising.mode == "max"


def test_min_delta_is_measured_from_the_best():
    stopper = EarlyStopping(patience=3, min_delta=0.5, restore_best=False)
    assert feed(stopper, [2.0, 1.75, 1.5, 1.25]) == [False] * 4  # 1.25 is 0.75 below the best
    assert (stopper.best, stopper.best_epoch) == (1.25, 4)
    assert feed(stopper, [0.75, 1, 1]) == [False, False, True]  # exactly min_delta is not enough


def test_nan_and_infinity_are_waited_out():
    stopper = EarlyStopping(patience=3, restore_best=False)
    assert feed(stopper, [math.nan, math.inf, 2.0, -math.inf, math.nan, math.nan]) == (
        [False] * 5 + [True]
    )
    assert stopper.best == 2.0
    never = EarlyStopping(patience=1)
    assert never.observe({"valid/loss": math.nan}, nn.Linear(1, 1))
    assert never.best is None
    assert "never finite" in never.message
    assert never.restore(nn.Linear(1, 1)) is False


def test_the_best_weights_come_back_and_the_counters_do_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Dropout(0.5, seed=0))
    stopper = EarlyStopping(patience=5)
    for loss in (3.0, 1.0, 2.0):
        model(torch.randn(4, 2))
        with torch.no_grad():
            model[0].weight.fill_(loss)
        stopper.observe({"valid/loss": loss}, model)
    expected_mean = stopper._weights["1.running_mean"].clone()
    assert stopper.restore(model)
    assert torch.equal(model[0].weight, torch.full((2, 2), 1.0))
    assert torch.equal(model[1].running_mean, expected_mean)
    assert model[1].num_batches_tracked == 2
    assert model[2].stream.tolist() == [0, 3]


def test_a_resumed_run_stops_at_the_same_epoch():
    values = [3.0, 1.0, 1.5, 1.4, 1.3]
    model = nn.Linear(1, 1)
    whole, first = EarlyStopping(patience=3), EarlyStopping(patience=3)
    for value in values[:3]:
        first.observe({"valid/loss": value}, model)
    second = EarlyStopping(patience=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = [second.observe({"valid/loss": value}, model) for value in values[3:]]
    assert resumed == [whole.observe({"valid/loss": v}, model) for v in values][3:]
    assert second.state_dict().keys() == first.state_dict().keys()
    assert second.restore(model)
    with pytest.raises(ArgumentError, match="another metric"):
        EarlyStopping(metric="train/loss").load_state_dict(first.state_dict())


def test_early_stopping_refuses():
    with pytest.raises(UnknownNameError, match=r"(?s)valid/loss.*train/loss, valid/los.*did you"):
        EarlyStopping().observe({"train/loss": 1.0, "valid/los": 1.0}, nn.Linear(1, 1))
    with pytest.raises(ArgumentTypeError, match="restore_best=False"):
        EarlyStopping().observe({"valid/loss": 1.0})
    with pytest.raises(ArgumentError, match="lower is better"):
        EarlyStopping(metric="valid/quality")
    with pytest.raises(ArgumentError, match="lower is better"):
        EarlyStopping(metric="accuracy/loss")
    with pytest.raises(ArgumentError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(ArgumentError, match="unknown mode"):
        EarlyStopping(mode="down")
    with pytest.raises(ArgumentError, match="no best weights"):
        EarlyStopping(restore_best=False).restore(nn.Linear(1, 1))


# --- expressions ---------------------------------------------------------------------------------

EXPRESSIONS = [
    "dropout(0.1)", "dropout(0.1, seed=3)", "early_stopping()",
    "early_stopping(patience=3, metric='train/loss', min_delta=0.5)", "label_smoothing(0.1)",
    "clip_norm(1.0)", "clip_value(0.5)", "l1(1e-05)", "l1(1e-05, proximal=True)", "l2(0.0001)",
]  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_the_repr_makes_the_same_again(text):
    made = parse(text, REGULARIZERS, kind="regularizer")
    assert isinstance(made, Regularizer)
    again = parse(repr(made), REGULARIZERS)
    assert again == made
    assert eval(repr(made).replace("seed=", "seed="), dict(REGULARIZERS)) == made


def test_what_they_do_to_a_run():
    def of(text):
        made = parse(text, REGULARIZERS)
        return made.optimizer_options(), made.loss_options(), made.stopper()

    assert of("clip_norm(1)") == ({"clip_norm": 1.0}, {}, None)
    assert of("clip_value(2)") == ({"clip_value": 2.0}, {}, None)
    assert of("l1(1e-5, proximal=True)") == ({"l1": 1e-5, "l1_proximal": True}, {}, None)
    assert of("l2(1e-4)") == ({"l2": 1e-4}, {}, None)
    assert of("label_smoothing(0.1)") == ({}, {"label_smoothing": 0.1}, None)
    _, _, stopper = of("early_stopping(3, 'valid/accuracy')")
    assert (stopper.patience, stopper.mode) == (3, "max")
    assert parse("l2(0)", REGULARIZERS).prepare_model(nn.Linear(1, 1)) == ""
    weight = nn.Parameter(torch.ones(1))
    for text in EXPRESSIONS:
        ravine.optim.SGD([weight], lr=0.1, **of(text)[0])


def test_the_dropout_of_a_run():
    made = parse("dropout(0.1)", REGULARIZERS)
    plain = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    other = copy.deepcopy(plain)
    assert made.prepare_model(plain, seed=1) == "dropout p=0.1 inserted after 1"
    made.prepare_model(other, seed=2)
    assert plain[1][1].stream.tolist() != other[1][1].stream.tolist()
    fixed = parse("dropout(0.3, seed=1)", REGULARIZERS)
    assert fixed.prepare_model(plain, seed=9) == "dropout p=0.3 set in 1.1"
    untouched = nn.Linear(2, 1)
    assert parse("dropout(0)", REGULARIZERS).prepare_model(untouched) == (
        "dropout p=0 set in nothing"
    )
    with pytest.raises(ArgumentError, match="no place"):
        made.prepare_model(untouched)


@pytest.mark.parametrize(
    "text",
    [
        "dropout(1.5)", "dropout()", "label_smoothing(1)", "clip_norm(0)", "l1(-1)", "l2('a')",
        "early_stopping(patience=0)", "early_stopping(metric='valid/x')", "dropuot(0.1)",
        "clip_value(-1)", "dropout(0.1, seed=-1)",
    ],
)  # fmt: skip
def test_expressions_that_cannot_be(text):
    with pytest.raises(ExpressionError, match=r"\^"):
        parse(text, REGULARIZERS, kind="regularizer")
