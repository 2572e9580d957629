"""A person's own functions inside a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import line, numbers, points, same, task, weights

import ravine
from ravine.errors import ArgumentError, ArgumentTypeError, HookError
from ravine.training.hooks import EpochState, StepState


def test_on_step_sees_every_step_as_it_is() -> None:
    """A hand-written loop has the same losses, batches and weights at every step."""
    made = line(rows=8)
    seen: list[tuple[Any, ...]] = []

    def on_step(state: StepState) -> None:
        weight = state.model.weight.item()  # type: ignore[union-attr]
        seen.append((state.step, state.epoch, state.loss, weight, state.inputs, state.targets))
        assert state.lr == state.optimizer.param_groups[0]["lr"] == 0.1
        grads = [p.grad for p in state.model.parameters()]
        assert state.gradient_norm() == pytest.approx(
            math.sqrt(sum(float((g**2).sum()) for g in grads if g is not None))
        )

    record = ravine.train(made, "sgd(lr=0.1)", batch_size=4, epochs=3, on_step=on_step)
    assert [(step, epoch) for step, epoch, *_ in seen] == [
        (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)
    ]  # fmt: skip
    model = nn.Linear(1, 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    for _, _, loss, weight, inputs, targets in seen:
        expected = nn.functional.mse_loss(model(inputs), targets)
        model.zero_grad()
        expected.backward()
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.1 * p.grad)
        assert loss == pytest.approx(expected.item(), rel=1e-12)
        assert weight == pytest.approx(model.weight.item(), rel=1e-12)
    assert record.model.weight.item() == seen[-1][3]  # type: ignore[union-attr]


def test_hooks_change_nothing_of_the_run() -> None:
    plain = ravine.train(task(), epochs=3)
    hooked = ravine.train(
        task(),
        epochs=3,
        on_step=lambda state: state.loss,
        on_epoch=lambda row, state: None,
        on_end=lambda record: None,
    )
    assert numbers(hooked.history) == numbers(plain.history)
    assert same(weights(hooked.model), weights(plain.model))


def test_on_epoch_gets_the_row_and_adds_to_it(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []

    def on_epoch(row: Any, state: EpochState) -> None:
        rows.append(dict(row))
        assert (state.epoch, state.step) == (row["epoch"], row["step"])
        state.log("valid/error", 1 - row["valid/accuracy"])
        state.log("norm", sum(p.norm() ** 2 for p in state.model.parameters()).sqrt())
        state.log("bad", math.nan)

    record = ravine.train(task(), epochs=2, run_dir=tmp_path / "run", on_epoch=on_epoch)
    for row, kept in zip(rows, record.history, strict=True):
        assert kept == row | {
            "valid/error": 1 - row["valid/accuracy"],
            "norm": kept["norm"],
            "bad": pytest.approx(math.nan, nan_ok=True),
        }
    assert record.metrics["valid/error"] == record.history[-1]["valid/error"]
    written = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text)["valid/error"] for text in written] == record.history.column(
        "valid/error"
    )
    assert "error" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("train/loss", 1.0, ArgumentError, "has this name already"),
        ("f1", "0.9", None, ""),
        ("f1", "high", ArgumentTypeError, "only a name and a number"),
        ("f1", torch.ones(2), ArgumentTypeError, "only a name and a number"),
        ("f1", [1.0], ArgumentTypeError, "'f1': list"),
        (3, 1.0, ArgumentTypeError, "only a name and a number"),
        ("f1", torch.tensor(1j), ArgumentTypeError, "only a name and a number"),
    ],
)
def test_only_numbers_under_new_names_are_logged(
    name: Any, value: Any, error: type[Exception] | None, message: str
) -> None:
    caught: list[Exception] = []

    def on_epoch(row: Any, state: EpochState) -> None:
        try:
            state.log(name, value)
        except Exception as problem:
            caught.append(problem)

    ravine.train(task(), epochs=1, on_epoch=on_epoch)
    assert [type(problem) for problem in caught] == ([error] if error else [])
    assert all(message in str(problem) for problem in caught)


def test_on_end_comes_last_with_all_written(tmp_path: Path) -> None:
    ended: list[Any] = []

    def on_end(record: Any) -> None:
        assert (record.run_dir / "record.json").is_file()
        assert (record.run_dir / "model.safetensors").is_file()
        ended.append(record)

    record = ravine.train(task(), epochs=1, run_dir=tmp_path / "run", on_end=on_end)
    assert len(ended) == 1
    assert ended[0] is record


def test_the_weights_that_validation_looks_at() -> None:
    X, y = points(20, seed=1)
    found: list[tuple[float, float]] = []

    def on_epoch(row: Any, state: EpochState) -> None:
        before = weights(state.model)
        with state.averaged(), torch.no_grad():
            state.model.eval()
            loss = nn.functional.cross_entropy(state.model(X), y).item()
        assert same(before, weights(state.model))
        found.append((loss, row["valid/loss"]))

    ravine.train(task(), "sgd(lr=0.5, average=0.9)", epochs=3, on_epoch=on_epoch)
    assert [loss for loss, _ in found] == pytest.approx([valid for _, valid in found], rel=1e-5)


# Stopping


def test_a_step_stops_the_run_there_with_validation_and_files(tmp_path: Path) -> None:
    def on_step(state: StepState) -> None:
        if state.step == 5:
            state.stop("step five is enough")

    record = ravine.train(
        task(), batch_size=10, epochs=9, run_dir=tmp_path / "run", on_step=on_step
    )
    assert (record.status, record.message) == ("stopped early", "step five is enough")
    assert record.facts["steps"] == 5
    assert record.history.column("step") == [4, 5]
    assert record.history[-1]["valid/loss"] == record.metrics["valid/loss"]
    saved = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert saved["message"] == "step five is enough"
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_an_epoch_stops_the_run_and_early_stopping_keeps_the_best() -> None:
    def on_epoch(row: Any, state: EpochState) -> None:
        if row["epoch"] == 3:
            state.stop("three")

    record = ravine.train(task(), epochs=9, on_epoch=on_epoch, regularize="early_stopping(5)")
    assert record.status == "stopped early"
    assert record.message.startswith("three; ")
    assert "are kept" in record.message
    assert len(record.history) == 3


@pytest.mark.parametrize("reason", [None, "", " ", 3])
def test_a_stop_says_why(reason: Any) -> None:
    with pytest.raises(HookError) as caught:
        ravine.train(task(), epochs=1, on_step=lambda state: state.stop(reason))
    assert "a run is stopped with a reason" in str(caught.value)


# Errors


def fails(*_: Any) -> None:
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize("name", ["on_step", "on_epoch", "on_end"])
def test_an_error_names_the_hook_and_its_line_and_the_run_is_kept(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(HookError) as caught:
        ravine.train(task(), epochs=2, run_dir=tmp_path / "run", **{name: fails})
    number = fails.__code__.co_firstlineno + 1
    what = f"{name} (fails, line {number} of {Path(__file__).name}) raised ZeroDivisionError: mine"
    assert str(caught.value).splitlines()[0] == what
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    record = caught.value.record  # type: ignore[attr-defined]
    saved = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert saved["status"] == record.status == ("completed" if name == "on_end" else "failed")
    assert saved["message"] == ("" if name == "on_end" else f"HookError: {what}")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_on_end_is_told_of_a_run_that_failed_and_hides_nothing() -> None:
    statuses: list[str] = []

    def on_end(record: Any) -> None:
        statuses.append(record.status)
        fails()

    with pytest.raises(HookError, match="on_epoch") as caught:
        ravine.train(task(), epochs=2, on_epoch=fails, on_end=on_end)
    assert statuses == ["failed"]
    assert any("on_end" in note for note in caught.value.__notes__)


def test_a_hook_that_takes_something_else_is_said() -> None:
    with pytest.raises(HookError, match=r"on_epoch .*takes 1 positional argument"):
        ravine.train(task(), epochs=1, on_epoch=lambda row: None)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("name", ["on_step", "on_epoch", "on_end"])
def test_what_cannot_be_called_is_refused_before_anything(name: str, tmp_path: Path) -> None:
    wrong: Any = {name: "print"}
    with pytest.raises(ArgumentTypeError, match=f"{name} is not a function"):
        ravine.train(task(), run_dir=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_a_hook_is_ctrl_c() -> None:
    def on_step(state: StepState) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        ravine.train(task(), epochs=1, on_step=on_step)
    assert caught.value.record.status == "interrupted"  # type: ignore[attr-defined]


def test_a_hook_may_be_any_callable() -> None:
    class Counter:
        steps = 0

        def __call__(self, state: StepState) -> None:
            self.steps += 1

    counter: Callable[[StepState], object] = Counter()
    ravine.train(task(), batch_size=20, epochs=2, on_step=counter)
    assert counter.steps == 4  # type: ignore[attr-defined]


def test_the_state_cannot_be_changed() -> None:
    def on_step(state: StepState) -> None:
        state.inputs = Tensor()  # type: ignore[misc]

    with pytest.raises(HookError, match="FrozenInstanceError"):
        ravine.train(task(), epochs=1, on_step=on_step)
