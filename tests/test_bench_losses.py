"""`ravine bench losses`: peers that must give our numbers first, the table and its JSON."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ravine import cli, losses
from ravine.bench import LOSSES, SIZES, bench_losses
from ravine.bench import losses as bench
from ravine.bench.peers import Unable
from ravine.errors import UnknownNameError


@pytest.fixture
def no_compiler(monkeypatch):
    """A machine without a C++ compiler."""

    def compile(function):
        def fails(*arguments):
            raise RuntimeError("no working C++ compiler found\nin a list of four")

        return fails

    monkeypatch.setattr(torch, "compile", compile)


@pytest.mark.parametrize("name", LOSSES)
def test_peers_give_our_numbers(name):
    peer = LOSSES[name]
    shape = (7, 5, 3, 2)[: len(SIZES[peer.sizes[0]])]
    tensors = peer.tensors(shape, "cpu")
    ours = partial(losses.FUNCTIONS[name], **peer.options)
    bench.tried(peer.loss, ours, torch.randn(shape), *tensors)()


def test_a_run_gives_each_call_a_gradient_of_its_own():
    run, own = bench.prepared(F.mse_loss, torch.ones(2), torch.zeros(2))
    run()
    run()
    assert torch.equal(own.grad, torch.ones(2))


@pytest.mark.parametrize(
    "other", [lambda x, y: 2 * F.mse_loss(x, y), lambda x, y: F.mse_loss(x, y) + 0 * x.sum() + 1]
)
def test_a_peer_with_another_loss_or_gradient_is_not_timed(other):
    with pytest.raises(Unable, match="gives other numbers than ours"):
        bench.tried(other, losses.mse, torch.ones(3), torch.zeros(3))


def test_of_a_million_slopes_one_may_lie_on_the_other_side_of_a_kink():
    y = torch.zeros(1_000_000)
    y[:3] = torch.tensor([7.0, -7.0, 7.0])

    def other(places):
        factor = torch.ones_like(y)
        factor[:places] = 0
        return lambda x, y: F.mse_loss(x, y) + ((factor - 1) * (x - x.detach())).sum()

    bench.tried(other(1), losses.mse, torch.zeros_like(y), y)
    with pytest.raises(Unable, match="gives other numbers than ours"):
        bench.tried(other(2), losses.mse, torch.zeros_like(y), y)


@pytest.fixture
def record(no_compiler):
    seen = []
    found = bench_losses(losses=["mse", "hinge"], sizes=["64"], seconds=0.02, on_row=seen.append)
    assert found["rows"] == seen
    return found


def test_rows_hold_what_was_measured(record):
    assert [(row["loss"], row["size"]) for row in record["rows"]] == [
        ("mse", "64"),
        ("hinge", "64"),
    ]
    for row in record["rows"]:
        times = row["microseconds"]
        assert row["best_peer"] == "torch eager"
        assert row["ratios"] == {"torch eager": row["ratio"]}
        assert row["ratio"] == pytest.approx(times["torch eager"] / times["ravine"], rel=0.02)
        saved = 1 - times["ravine check=off"] / times["ravine"]
        assert row["cost_of_checking"] == pytest.approx(saved, abs=0.01)
        assert row["bytes"] == 64 * 4 * 3
        share = row["bytes"] / (times["ravine"] * 1e-6) / row["stream_limit_bytes_per_second"]
        assert row["share_of_limit"] == pytest.approx(share, rel=0.02, abs=0.001)
        assert row["unable"] == {"torch compile": "RuntimeError: no working C++ compiler found"}


def test_every_loss_has_sizes_that_exist():
    for peer in LOSSES.values():
        assert set(peer.sizes) <= SIZES.keys()


def test_unknown_names_are_told():
    with pytest.raises(UnknownNameError, match=r"unknown benchmark loss 'hubr'[\s\S]*did you mean"):
        bench_losses(losses=["hubr"])
    with pytest.raises(UnknownNameError, match="unknown benchmark size '8M'"):
        bench_losses(sizes=["8M"])


def test_command_prints_a_table_and_gives_json(capsys, no_compiler, tmp_path):
    path = tmp_path / "losses.json"
    words = ["bench", "losses", "-l", "mse", "-s", "64", "--seconds", "0.02"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--json", "--save", str(path)])
    captured = capsys.readouterr()
    assert ended.value.code == 0
    assert json.loads(captured.out) == json.loads(path.read_text())
    head, row, limit, missing, *_ = captured.err.splitlines()
    assert head.split()[:2] == ["ravine", "us"]
    assert row.startswith("mse 64 ")
    assert limit.startswith("stream limit, GB/s: ")
    assert missing == "torch compile, mse 64: RuntimeError: no working C++ compiler found"
