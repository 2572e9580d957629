"""What a loss asks for, row by row, and the findings that follow."""

from __future__ import annotations

import math

import pytest
import torch
from faulty_programs import clusters, evidence_of, generator, line, names, net, program
from torch import nn
from torch.nn import functional as F

from ravine import diagnose
from ravine.diagnose.checks.loss import loss_checks
from ravine.diagnose.probes.pull import measured_pull
from ravine.losses import LOSSES
from ravine.tasks import load_task

LABELS = torch.tensor([0, 2, 1, 2, 0, 1])
NUMBERS = torch.randn(6, 1, generator=generator())


def pulled(loss, shape, targets, kind):
    return measured_pull(loss, torch.Size(shape), targets, kind, 3)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.multi_margin_loss], ids=["ce", "margin"])
def test_losses_of_classes_pull_the_right_class_up(loss):
    seen = pulled(loss, (6, 3), LABELS, "classes")
    assert (seen.toward, seen.away, seen.rows_matter, seen.output_matters) == (1, 0, True, True)


def test_the_share_is_that_of_a_loop_over_rows():
    def lottery(output, target):  # right for even rows, the opposite for odd ones
        each = F.cross_entropy(output, target, reduction="none")
        return (each * torch.tensor([1.0, -1, 1, -1, 1, -1])).sum()

    seen = pulled(lottery, (6, 3), LABELS, "classes")
    assert (seen.toward, seen.away) == (0.5, 0.5)


def test_a_negative_loss_pulls_away():
    seen = pulled(lambda o, y: -F.mse_loss(o, y), (6, 1), NUMBERS, "numbers")
    assert (seen.toward, seen.away) == (0, 1)


def test_classes_in_the_second_dimension():
    targets = torch.randint(0, 3, (4, 5), generator=generator())
    assert pulled(F.cross_entropy, (4, 3, 5), targets, "classes").toward == 1


def test_pairs_of_all_with_all_and_a_loss_that_is_constant():
    flat = NUMBERS.flatten()
    all_pairs = pulled(lambda o, y: (o - y).square().mean(), (6, 1), flat, "numbers")
    assert all_pairs.rows_matter is False
    alone = pulled(
        lambda o, y: -(y * o.log_softmax(-1)).sum(-1).mean(), (6, 1),
        F.one_hot(LABELS).float(), "one-hot",
    )  # fmt: skip
    assert not alone.output_matters


def test_targets_that_are_all_equal_tell_nothing_of_their_places():
    assert pulled(F.mse_loss, (6, 1), torch.zeros(6, 1), "numbers").rows_matter is None


def test_a_loss_that_refuses_the_draw_tells_nothing():
    def refuses(output, target):
        raise ValueError("only integers")

    seen = pulled(refuses, (6, 1), NUMBERS, "numbers")
    assert math.isnan(seen.toward) and seen.output_matters


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "huber", "binary_cross_entropy"])
def test_no_loss_of_the_library_is_called_wrong(name):
    classes = name == "cross_entropy"
    X, y = clusters(100) if classes else line(100)
    if name == "binary_cross_entropy":
        y = (y > 0).float()
    run = program((X, y), lambda: net(X.shape[1], 8, 3 if classes else 1), name)
    assert name in LOSSES
    assert names(loss_checks(evidence_of(run))) == []


def distance(output, target):
    return (output - target[:, None]).square().mean()


def test_distances_to_the_number_of_a_class():
    X, y = clusters(200)
    run = program((X, y), lambda: net(3, 8, 3), distance)
    found = list(loss_checks(evidence_of(run)))
    assert names(found) == ["wrong-loss"] and found[0].certain


def test_a_negated_loss_is_named_and_mended():
    X, y = clusters(200)
    run = program(
        (X, y), lambda: net(3, 8, 3), lambda o, t: -F.cross_entropy(o, t), epochs=4
    )  # fmt: skip
    found = diagnose(run, budget=60)
    assert found.findings[0].name == "gradient-sign-flipped"
    assert found.findings[0].treatments[0].helped


def test_a_hinge_loss_is_not_taken_for_an_absolute_one():
    X, y = clusters(200, classes=2)
    run = program((X, 2 * y.float()[:, None] - 1), lambda: net(2, 8, 1), "hinge")
    assert names(loss_checks(evidence_of(run))) == []


def test_absolute_errors_of_zeros_and_ones():
    X, y = clusters(200, classes=2)
    run = program((X, y.float()[:, None]), lambda: net(2, 8, 1, head=nn.Sigmoid()), nn.L1Loss())
    assert names(loss_checks(evidence_of(run))) == ["wrong-loss"]
    squares = program((X, y.float()[:, None]), lambda: net(2, 8, 1, head=nn.Sigmoid()), "mse")
    assert names(loss_checks(evidence_of(squares))) == []


def test_names_that_are_written_as_numbers_and_amounts_that_are_whole():
    task = load_task("digits")
    X, y = task.train[0][:500], task.train[1][:500]
    names_as_numbers = program((X, y.float()[:, None]), lambda: net(64, 16, 1), "mse")
    assert names(loss_checks(evidence_of(names_as_numbers))) == ["wrong-loss"]
    amounts = (2 + X[:, 20:21]).round().clamp(0, 4)
    whole = program((X, amounts), lambda: net(64, 16, 1), "mse")
    assert names(loss_checks(evidence_of(whole))) == []
