"""Every rule and option in lock-step with its oracle, and the executors with each other."""

from __future__ import annotations

import math

import pytest
import torch
from rule_table import ROWS

import ravine.optim
from ravine.rules import RULES

SHARED = [row for row in ROWS if row.torch_class is not None]


def weights(dtype=torch.float64, generator=None):
    """Weights of every shape and layout that an executor has to get right."""

    def random(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)

    return [
        torch.nn.Parameter(tensor)
        for tensor in (
            random(7, 5),
            random(),
            random(1),
            random(0, 3),
            random(5, 4).t(),
            random(2, 3, 4, 2).contiguous(memory_format=torch.channels_last),
            random(9, 4)[::2, 1:3],  # a view with gaps
            random(6),
            random(1, 4, 1),
        )
    ]


def gradients(like, step, generator=None):
    """Gradients whose size changes from 1e-6 to 1e3, some laid out unlike their weights."""
    made = []
    for k, w in enumerate(like):
        scale = 10.0 ** ((5 * step + 3 * k) % 10 - 6)
        g = scale * torch.randn(w.shape, dtype=torch.float64, generator=generator)
        if k == 4 and step % 2:
            g = g.t().contiguous().t()
        if k == 7 and step % 3 == 0:
            g = g[:1].expand(6)
        if k == 0 and step % 4 == 0:
            g = g.t().contiguous().t()
        made.append(g.to(w.dtype))
    return made


def set_gradients(ours, values):
    for w, g in zip(ours, values, strict=True):
        w.grad = g


def copies(values):
    return [
        torch.nn.Parameter(w.detach().clone(memory_format=torch.preserve_format)) for w in values
    ]


def views(values):
    """Return copies that keep gaps and order in memory."""
    made = []
    for w in values:
        base = torch.zeros(2 * max(w.numel(), 1) + 64, dtype=w.dtype)
        tensor = base.as_strided(w.shape, w.stride())
        tensor.copy_(w.detach())
        made.append(torch.nn.Parameter(tensor))
    return made


def assert_close(got, want, rtol, atol, note):
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol):
            continue  # the same judgement in a tenth of the time, for 70,000 pairs
        torch.testing.assert_close(
            a.detach(),
            b.detach(),
            rtol=rtol,
            atol=atol,
            msg=lambda m, k=k: f"{note}, weight {k}: {m}",
        )


def test_every_rule_has_a_row():
    missing = RULES.keys() - {row.rule for row in ROWS}
    assert not missing, f"tests/rule_table.py has no row for {sorted(missing)}"


def test_every_hyperparameter_is_varied_in_a_row():
    for name, rule in RULES.items():
        given = set().union(*(row.options for row in ROWS if row.rule == name))
        if "derived" in name or name == "AdamW":
            continue
        assert set(rule.hyperparameters) <= given, name


def test_every_option_is_varied_in_a_row():
    given = set().union(*(row.options for row in ROWS))
    # What rounds at random has its own tests, test_lean_*.py; what leaves steps out, too.
    elsewhere = {"backend", "state_dtype", "stochastic_rounding", "rounding_seed"}
    elsewhere |= {"skip_nonfinite", "in_backward", "capturable"}
    assert set(ravine.optim.Adam.options) - elsewhere <= given


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_lock_step_with_the_oracle(row, backend):
    theirs = weights()
    ours = views(theirs)
    # The view with gaps has no kernel: its group is left to the automatic choice.
    gaps = [ours.pop(6)]
    groups = [{"params": ours, "backend": backend}, {"params": gaps}]
    optimizer = getattr(ravine.optim, row.rule)(groups, **row.options)
    ours = [*ours[:6], *gaps, *ours[6:]]
    oracle = row.oracle(theirs)
    for step in range(50):
        values = gradients(theirs, step)
        kept = [g.clone() for g in values]
        set_gradients(ours, values)
        set_gradients(theirs, [g.clone() for g in values])
        optimizer.step()
        oracle()
        assert_close(ours, theirs, 1e-12, 1e-13, f"step {step}")
        for w, g, k in zip(ours, values, kept, strict=True):
            assert w.grad is g
            assert torch.equal(g, k), "p.grad was changed"


@pytest.mark.parametrize("row", [r for r in ROWS if "average" in r.options], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_average_is_the_exponential_average_of_the_weights(row, backend):
    ours = [w for w in weights() if w.is_contiguous()]
    optimizer = getattr(ravine.optim, row.rule)(ours, backend=backend, **row.options)
    wanted = [w.detach().clone() for w in ours]
    decay = row.options["average"]
    for step in range(30):
        set_gradients(ours, gradients(ours, step))
        optimizer.step()
        wanted = [decay * a + (1 - decay) * w.detach() for a, w in zip(wanted, ours, strict=True)]
    before = [w.detach().clone() for w in ours]
    with optimizer.averaged():
        assert_close(ours, wanted, 1e-12, 1e-14, "average")
    assert_close(ours, before, 0, 0, "put back")


def test_average_equals_torch_swa_utils():
    model = torch.nn.Linear(4, 3).double()
    optimizer = ravine.optim.SGD(model.parameters(), lr=0.1, average=0.9)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    averaged.update_parameters(model)  # torch's average begins with the first weights it is shown
    for _ in range(20):
        for w in model.parameters():
            w.grad = torch.randn_like(w)
        optimizer.step()
        averaged.update_parameters(model)
    with optimizer.averaged():
        assert_close(model.parameters(), averaged.module.parameters(), 1e-12, 1e-14, "swa")


def test_proximal_l1_gives_exact_zeros_and_the_subgradient_does_not():
    def zeros(**options):
        w = torch.nn.Parameter(torch.linspace(-1, 1, 50, dtype=torch.float64))
        optimizer = ravine.optim.SGD([w], lr=0.1, l1=0.5, **options)
        for _ in range(40):
            w.grad = 0.01 * w.detach()
            optimizer.step()
        return int((w == 0).sum())

    assert zeros() == 0
    assert zeros(l1_proximal=True) == 50


def test_sgd_with_dampening_equal_to_momentum_is_the_textbook_rule_after_its_first_step():
    a, b = (torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in "ab")
    damped = ravine.optim.SGD([a], lr=0.1, momentum=0.9, dampening=0.9)
    textbook = ravine.optim.Momentum([b], lr=0.1)
    a.grad, b.grad = torch.ones(2, 3, dtype=torch.float64)
    damped.step()
    textbook.step()
    torch.testing.assert_close(a.detach(), 10 * b.detach(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", SHARED, ids=str)
def test_non_finite_gradients_spoil_what_they_spoil_in_torch(row, bad):
    ours = [torch.nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2)]
    theirs = copies(ours)
    optimizer = getattr(ravine.optim, row.rule)(ours, **row.options)
    oracle = row.oracle(theirs)
    for step in range(5):
        values = [torch.randn_like(w.detach()) for w in ours]
        if step == 2:
            values[0][1] = bad
        set_gradients(ours, values)
        set_gradients(theirs, [g.clone() for g in values])
        optimizer.step()
        oracle()
        for a, b in zip(ours, theirs, strict=True):
            # Which of NaN and inf may differ: torch's lerp makes NaN of a momentum that is inf.
            fine = b.detach().isfinite()
            assert torch.equal(a.detach().isfinite(), fine)
            torch.testing.assert_close(a[fine], b[fine], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_non_finite_gradients_does_what_torch_does(bad):
    ours = [torch.nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2)]
    theirs = copies(ours)
    for w, v in zip(ours, theirs, strict=True):
        w.grad = torch.randn_like(w.detach())
        w.grad[2] = bad
        v.grad = w.grad.clone()
    ravine.optim.SGD(ours, lr=0.1, clip_norm=0.7).step()
    torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    torch.optim.SGD(theirs, lr=0.1).step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=0, equal_nan=True)


def test_centred_rmsprop_stays_finite_wherever_torch_does():
    ours = torch.nn.Parameter(torch.zeros(2000))
    theirs = torch.nn.Parameter(torch.zeros(2000))
    g = torch.logspace(-4, 4, 2000)
    a = ravine.optim.RMSprop([ours], lr=1e-3, centered=True)
    b = torch.optim.RMSprop([theirs], lr=1e-3, centered=True)
    for _ in range(3000):
        ours.grad = theirs.grad = g
        a.step()
        b.step()
    assert int(ours.isnan().sum()) <= int(theirs.isnan().sum())
