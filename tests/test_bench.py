"""`ravine bench`: honest timing, peers that are told why they are missing, the table and its JSON."""

from __future__ import annotations

import itertools
import json
import sys
import types

import pytest
import torch

from ravine import cli
from ravine.bench import RULES, bench_steps, timing
from ravine.bench.peers import PACKAGES, Unable, peers, tried
from ravine.errors import UnknownNameError


@pytest.fixture(autouse=True, scope="module")
def _torch_alone():
    """No packages that happen to be installed: HeavyBall compiles for half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        for package in PACKAGES:
            patch.setitem(sys.modules, package, None)
        yield


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what the cases add to it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_the_median_of_each_case_is_found_however_the_machine_drifts(clock):
    order = []

    def case(name, duration):
        def run():
            order.append(name)
            clock[0] += duration * (3 if len(order) % 7 == 0 else 1)  # an outlier now and then

        return run

    found = timing.interleaved({"a": case("a", 2.0), "b": case("b", 5.0)}, seconds=700, rounds=5)
    assert found == pytest.approx({"a": 2.0, "b": 5.0})
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns == ["a", "b"] * (len(turns) // 2), "the cases take turns"
    assert len(turns) >= 2 * 5


def weights():
    made = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    for weight in made:
        weight.grad = torch.ones_like(weight)
    return made


def test_peers_of_torch_make_the_step_that_was_asked_for():
    found = dict(peers("AdamW", {"lr": 0.5, "weight_decay": 0.1, "clip_norm": 1.0}))
    assert set(found) >= {"torch default", "torch foreach", "torch fused"}
    mine = weights()
    step = found["torch foreach"](mine)
    step()
    theirs = weights()
    optimizer = torch.optim.AdamW(theirs, lr=0.5, weight_decay=0.1)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    optimizer.step()
    assert all(map(torch.equal, mine, theirs))


def test_a_peer_without_the_rule_or_the_way_says_so():
    found = dict(peers("RMSprop", {"lr": 0.1}))
    with pytest.raises(Unable, match="unexpected keyword argument 'fused'"):
        tried(found["torch fused"], weights())
    with pytest.raises(Unable, match="has no such rule"):
        tried(dict(peers("Nonsense", {}))["torch default"], weights())


def test_a_package_that_is_not_installed_is_no_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", None)
    with pytest.raises(Unable, match="not installed"):
        tried(dict(peers("SGD", {"lr": 0.1}))["heavyball"], weights())


class Taking(torch.optim.SGD):
    """Takes the gradients away, as HeavyBall does."""

    def step(self):
        super().step()
        self.zero_grad()


class Idle(torch.optim.SGD):
    """Would win any race."""

    def step(self):
        pass


def test_a_peer_that_takes_the_gradients_gets_them_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", types.SimpleNamespace(SGD=Taking))
    mine = weights()
    step = tried(dict(peers("SGD", {"lr": 0.1}))["heavyball"], mine)
    assert torch.allclose(mine[0], torch.full((3,), 0.8))
    step()
    assert torch.allclose(mine[0], torch.full((3,), 0.7))


def test_a_peer_that_does_nothing_is_not_timed(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", types.SimpleNamespace(SGD=Idle))
    with pytest.raises(Unable, match="left a weight as it was"):
        tried(dict(peers("SGD", {"lr": 0.1}))["heavyball"], weights())


@pytest.fixture(scope="module")
def record():
    seen = []
    found = bench_steps(models=["9k"], rules=["SGD", "RMSprop"], seconds=0.05, on_row=seen.append)
    assert found["rows"] == seen
    return found


def test_rows_hold_what_was_measured(record):
    assert [row["rule"] for row in record["rows"]] == ["SGD", "RMSprop"]
    for row in record["rows"]:
        times = row["microseconds"]
        best = min((name for name in times if name != "ravine"), key=times.get)
        assert row["best_peer"] == best
        assert row["ratio"] == pytest.approx(times[best] / times["ravine"], rel=0.02)
        assert row["weights"] == 8730
        assert row["bytes"] == 8730 * RULES[row["rule"]].bytes_each
        share = row["bytes"] / (times["ravine"] * 1e-6) / row["stream_limit_bytes_per_second"]
        assert row["share_of_limit"] == pytest.approx(share, rel=0.02, abs=0.001)
    assert "fused" in record["rows"][1]["unable"]["torch fused"]


def test_unknown_names_are_told():
    with pytest.raises(UnknownNameError, match=r"unknown benchmark model '42m'[\s\S]*did you mean"):
        bench_steps(models=["42m"])
    with pytest.raises(UnknownNameError, match="unknown benchmark rule 'Adan'"):
        bench_steps(rules=["Adan"])


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "steps", *words])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_command_prints_a_table_and_saves_json(capsys, tmp_path):
    path = tmp_path / "steps.json"
    code, out, _ = run(capsys, "-m", "9k", "-r", "SGD", "--seconds", "0.05", "--save", str(path))
    assert code == 0
    head, row, limit, *_ = out.splitlines()
    assert head.split() == [
        "ravine",
        "us",
        *["best", "peer", "us"],
        *["best", "peer"],
        "ratio",
        *["of", "limit"],
    ]
    assert row.startswith("9k SGD")
    assert limit.startswith("stream limit, GB/s: ")
    saved = json.loads(path.read_text())
    assert saved["kind"] == "bench steps"
    assert saved["rows"][0]["rule"] == "SGD"


def test_command_gives_json_alone_on_stdout(capsys):
    code, out, err = run(capsys, "-m", "9k", "-r", "SGD", "--seconds", "0.05", "--json")
    assert code == 0
    assert json.loads(out)["rows"]
    assert "9k SGD" in err


def test_command_fails_before_it_measures(capsys, tmp_path):
    code, _, err = run(capsys, "--save", str(tmp_path / "no" / "steps.json"))
    assert code == 2
    assert "the result cannot be written" in err
    code, _, err = run(capsys, "-r", "AdamX", "--seconds", "0.05")
    assert code == 2
    assert "unknown benchmark rule 'AdamX'" in err
