"""The watch around a run: it tells what is wrong, and changes no bit of the run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_command import PLAIN
from torch import Tensor, nn
from training_cases import points
from training_cases import task as points_task
from typer.testing import CliRunner

import ravine
from ravine.cli import build_app
from ravine.errors import NonFiniteError, RunDirectoryError
from ravine.tasks.loading import TASKS
from ravine.training.events import Found
from ravine.training.hooks import StepState
from ravine.watch import FindingWarning

OPTIONS: dict[str, Any] = {"batch_size": 16, "epochs": 6, "seed": 3, "regularize": ["dropout(0.2)"]}


def made() -> ravine.Task:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return points_task(model=model, train=points(100), valid=points(40))


def bits(record: Any) -> list[Tensor]:
    return [tensor.clone() for tensor in record.model.state_dict().values()]


def quiet(*arguments: Any, **options: Any) -> Any:
    """Train; return the record however the run ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindingWarning)
        try:
            return ravine.train(*arguments, **options)
        except NonFiniteError as error:
            return error.record  # type: ignore[attr-defined]


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1, clip_norm=0.5)", "torch"])
def test_the_bits_are_those_of_a_run_without(optimizer: str) -> None:
    choice: Any = optimizer
    if optimizer == "torch":
        choice = lambda weights: torch.optim.Adam(weights, lr=0.01)  # noqa: E731
    runs = []
    for watch in (True, False):
        seen: list[Tensor] = []

        def on_step(state: StepState, seen: list[Tensor] = seen) -> None:
            seen.extend(p.grad.clone() for p in state.model.parameters() if p.grad is not None)
            seen.append(torch.get_rng_state())

        record = ravine.train(made(), choice, **OPTIONS, watch=watch, on_step=on_step)
        runs.append((bits(record), seen, record.history.column("valid/loss")))
    (weights, seen, losses), (other_weights, others, other_losses) = runs
    assert len(seen) == len(others) > 42
    assert all(map(torch.equal, weights, other_weights))
    assert all(map(torch.equal, seen, others))
    assert losses == other_losses


def test_the_watch_is_there_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = ravine.watch.Watch.look
    monkeypatch.setattr(
        ravine.watch.Watch, "look", lambda self: (looked.append(self._step + 1), look(self))[1]
    )
    ravine.train(made(), **OPTIONS)
    assert looked == [1, 2, 3, 33]
    looked.clear()
    ravine.train(made(), **OPTIONS, watch=False)
    assert looked == []


def test_validation_and_the_hooks_of_a_person_meet_no_hook_of_the_watch() -> None:
    """A forward hook takes the fast path away from torch's encoder layers, and their other bits."""

    def on_step(state: StepState) -> None:
        assert not any(m._forward_hooks for m in state.model.modules())
        assert not any(p._backward_hooks for p in state.model.parameters())
        assert not state.optimizer._optimizer_step_pre_hooks
        assert not state.optimizer._optimizer_step_post_hooks

    assert ravine.train(made(), **OPTIONS, on_step=on_step).status == "completed"


@pytest.mark.parametrize("optimizer", ["adam(lr=100)", "sgd(lr=100)", "sgd(lr=100, momentum=0.9)"])
@pytest.mark.parametrize("task", ["digits", "diabetes"])
def test_a_learning_rate_of_100_is_told(task: str, optimizer: str) -> None:
    record = quiet(task, optimizer, epochs=1)
    assert [f.code for f in record.findings][:1] == ["LR-HIGH"]


@pytest.mark.parametrize("task", [name for name in TASKS if name in ("wine", "diabetes")])
@pytest.mark.parametrize("seed", range(3))
def test_a_built_in_task_has_no_finding(task: str, seed: int) -> None:
    record = ravine.train(task, seed=seed)
    assert record.findings == []
    assert record.to_json()["findings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", "breast-cancer", "digits-cnn"])
def test_a_longer_built_in_task_has_no_finding(task: str) -> None:
    assert ravine.train(task).findings == []


def test_a_finding_is_an_event_a_warning_a_line_and_stays_in_the_record(tmp_path: Path) -> None:
    events: list[Any] = []
    with pytest.warns(
        FindingWarning, match=r"^LR-HIGH lr-too-high: .* \(ravine explain LR-HIGH\)$"
    ):
        record = ravine.train(
            "digits", "adam(lr=100)", epochs=1, run_dir=tmp_path, listeners=[events.append]
        )
    (found,) = [event for event in events if isinstance(event, Found)]
    assert found.finding is record.findings[0]
    assert found.text.startswith("LR-HIGH")
    saved = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["findings"]
    assert (saved[0]["code"], saved[0]["steps"]) == ("LR-HIGH", [1, 2])
    line = json.loads((tmp_path / "findings.jsonl").read_text(encoding="utf-8"))
    assert line == saved[0]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What the watch found" in page
    assert "<dt>LR-HIGH</dt><dd>lr-too-high: at step 1" in page


@pytest.mark.parametrize("policy", ["stop", "rollback", "skip"])
def test_policies_act_as_without_a_watch(policy: str, tmp_path: Path) -> None:
    records = [
        quiet(made(), "sgd(lr=1e9)", **OPTIONS, nonfinite=policy, watch=watch)
        for watch in (True, False)
    ]
    assert records[0].status == records[1].status
    assert records[0].message == records[1].message
    assert records[0].facts["steps"] == records[1].facts["steps"]
    assert all(map(torch.equal, bits(records[0]), bits(records[1])))
    assert [f.name for f in records[0].findings][:1] == ["lr-too-high"]
    assert records[1].findings == []


def test_gradients_that_pile_up_are_told() -> None:
    class Keeps(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            """Forget to clear."""

    record = quiet(made(), lambda weights: Keeps(weights, lr=0.01), **OPTIONS)
    assert [f.code for f in record.findings] == ["GRAD-KEPT"]


def test_a_model_whose_units_are_dead_is_told() -> None:
    task = made()
    with torch.no_grad():
        task.model[1].bias[:13] = -100.0
    (finding,) = quiet(task, "sgd(lr=0.001)", **{**OPTIONS, "epochs": 200}).findings
    assert (finding.code, finding.where) == ("UNIT-DEAD", "2.0")


@pytest.mark.parametrize("watched", [(True, True), (True, False), (False, True)])
def test_a_resumed_run_has_the_bits_of_the_unbroken_one(
    watched: tuple[bool, bool], tmp_path: Path
) -> None:
    class EnoughError(Exception):
        pass

    def on_step(state: StepState) -> None:
        if state.step == 20:
            raise EnoughError

    whole = ravine.train(made(), "adam(lr=0.01)", **OPTIONS)
    with pytest.raises(ravine.errors.HookError):
        ravine.train(
            made(), "adam(lr=0.01)", **OPTIONS, run_dir=tmp_path, checkpoint_every=6,
            on_step=on_step, watch=watched[0],
        )  # fmt: skip
    resumed = ravine.train(made(), resume=tmp_path, watch=watched[1])
    assert all(map(torch.equal, bits(whole), bits(resumed)))


def test_findings_are_kept_over_a_resume_and_said_once(tmp_path: Path) -> None:
    first = quiet(made(), "adam(lr=100)", **OPTIONS, run_dir=tmp_path, checkpoint_every=1)
    assert [f.code for f in first.findings] == ["LR-HIGH"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindingWarning)
        again = ravine.train(made(), resume=tmp_path, epochs=7)
    assert again.findings == first.findings
    path = tmp_path / "findings.jsonl"
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1
    path.write_text('{"name": "no-such"}\n', encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"findings\.jsonl cannot be read"):
        ravine.train(made(), resume=tmp_path, epochs=8)


def command(*words: str) -> Any:
    return CliRunner(env=PLAIN).invoke(build_app(), list(words), prog_name="ravine")


def test_the_command_shows_it_and_can_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "digits", "--epochs", "1", "--optimizer", "adam(lr=100)")
    shown = command(*arguments)
    assert "critical: LR-HIGH lr-too-high: at step 1" in shown.stdout
    assert "(ravine explain LR-HIGH)" in shown.stdout
    assert "watch found LR-HIGH; read on: ravine explain LR-HIGH" in shown.stdout
    assert "FindingWarning" not in shown.stdout + shown.stderr
    assert "LR-HIGH" not in command(*arguments, "--no-watch").stdout


def test_a_file_can_leave_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.toml"
    path.write_text("task = 'digits'\nepochs = 1\noptimizer = 'adam(lr=100)'\nwatch = false\n")
    done = command("train", "--config", str(path))
    assert "completed" in done.stdout
    assert "LR-HIGH" not in done.stdout
