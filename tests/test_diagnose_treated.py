"""`--apply`: the treated configuration runs, gives the better result, and drops nothing silently."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from faulty_programs import clusters, evidence_of, net, program
from torch import nn
from typer.testing import CliRunner

import ravine
from ravine.cli import build_app
from ravine.diagnose import Diagnosis, Finding, Trial
from ravine.diagnose.program import Change
from ravine.diagnose.replay import Trace
from ravine.diagnose.settling import Case
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treated import Remedy, Treated, _worse, treated
from ravine.diagnose.treated_file import text_of
from ravine.diagnose.treatments.model import HE, LINEAR_HEAD
from ravine.diagnose.treatments.steps import adam, times_lr
from ravine.diagnose.trials import climbed
from ravine.errors import ArgumentError, RunDirectoryError
from ravine.report.strict_json import to_strict_json

TRIAL = Trial("lower the learning rate to 1/10 of it", (0.9, 0.8, 0.9), (0.1, 0.2, 0.1),
              "1 - accuracy", True, (0.8, 0.9, 0.7), "take the rows in another order")  # fmt: skip
HELPS = Trial("x", (0.9,) * 3, (0.1,) * 3, "1 - accuracy", True)

TASK = """
import torch, ravine
from torch import nn

def task(seed):
    wine = ravine.tasks.load_task("wine", seed)
    torch.manual_seed(seed)
    layers = [nn.Linear(13, 16), nn.ReLU(), *LAYERS, nn.Linear(16, 3)]
    return ravine.Task(
        model=nn.Sequential(*layers), loss="cross_entropy", train=wine.train, valid=wine.valid,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=RATE), epochs=8, batch_size=16)
"""


def slow_and(*remedies: Change, rate: float = 1e-4) -> tuple[Any, list[Case], list[Finding]]:
    """A program whose only fault is its rate, and cases that say each remedy helped."""
    run = program(clusters(200), lambda: net(3, 8, 3), "cross_entropy",
                  optimizer=f"sgd(lr={rate})", epochs=5)  # fmt: skip
    kinds = ("lr-too-low", "bad-init", "too-few-epochs")
    cases = []
    for name, remedy in zip(kinds, remedies, strict=False):
        tried = Trial(remedy.says, HELPS.before, HELPS.after, HELPS.measure, True)
        cases.append(Case(Suspicion(Finding(name, "critical", "high", name), (remedy,)), [tried]))
    return evidence_of(run), cases, [case.finding for case in cases]


def test_a_remedy_that_a_configuration_says_is_replayed_as_the_configuration() -> None:
    evidence, cases, findings = slow_and(times_lr(1000.0))
    made = treated(evidence, findings, cases, "mine.py")
    assert made is not None and made.settings == {"optimizer": "sgd(lr=0.1)"}
    assert made.by_hand == () and made.left_out == ()
    assert made.after[0] < 0.2 < made.before[0] and made.unproved == ""


def test_remedies_of_different_parts_are_taken_together() -> None:
    evidence, cases, findings = slow_and(times_lr(1000.0), HE)
    made = treated(evidence, findings, cases, "mine.py")
    assert made is not None
    assert [(one.name, one.by_hand) for one in made.remedies] == [
        ("lr-too-low", False),
        ("bad-init", True),
    ]
    assert made.settings == {"optimizer": "sgd(lr=0.1)"} and made.left_out == ()


def test_what_undoes_another_remedy_is_left_out_with_the_reason() -> None:
    evidence, cases, findings = slow_and(times_lr(1000.0), adam(0.1))
    made = treated(evidence, findings, cases, "mine.py")
    assert made is not None and made.settings == {"optimizer": "sgd(lr=0.1)"}
    (left,) = made.left_out
    assert left == ("INIT-SCALE bad-init, use Adam with lr 0.1 over all weights: it changes what "
                    "the remedy of lr-too-low changes")  # fmt: skip


def test_what_is_worse_together_is_left_out() -> None:
    def forget(model: nn.Module) -> None:
        for weight in model.parameters():
            weight.requires_grad_(weight.ndim == 1)

    evidence, cases, findings = slow_and(times_lr(1000.0), Change("freeze it", model=forget))
    made = treated(evidence, findings, cases, "mine.py")
    assert made is not None and [one.name for one in made.remedies] == ["lr-too-low"]
    assert made.left_out[0].startswith("INIT-SCALE bad-init, freeze it: ")


@pytest.mark.parametrize(
    ("measure", "reached", "expected"),
    [
        ("1 - accuracy", 0.12, False),  # within half of what counts as an improvement
        ("1 - accuracy", 0.13, True),
        ("train/loss", 0.104, False),
        ("train/loss", 0.106, True),
    ],
)
def test_together_no_worse_than_the_first_alone(
    measure: str, reached: float, expected: bool
) -> None:
    assert _worse(Trial("x", (0.9,), (reached,), measure, True), 0.1) is expected


def test_a_run_whose_loss_runs_away_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers may be right while the weights grow without end."""
    evidence, cases, findings = slow_and(times_lr(1000.0))
    assert climbed(Trace(losses=[1.0], train_loss=[1.0, 2.1, 3.0]))
    assert not climbed(Trace(losses=[1.0], train_loss=[3.0, 1.9, 1.9]))
    assert climbed(Trace(losses=[-1.0], train_loss=[0.5]))  # a likelihood may be above 1
    assert not climbed(Trace(losses=[-1.0], train_loss=[-5.0]))
    monkeypatch.setattr("ravine.diagnose.treated.climbed", lambda run: True)
    made = treated(evidence, findings, cases, "mine.py")
    assert (
        made is not None and made.before == () and [one.by_hand for one in made.remedies] == [True]
    )
    assert made.unproved.startswith("with it the training loss rises, to ")
    assert f"# Not proved in this form: {made.unproved}." in text_of(made)


def test_without_time_nothing_is_called_replayed() -> None:
    _, cases, findings = slow_and(times_lr(1000.0), HE)
    run = program(clusters(200), lambda: net(3, 8, 3), "cross_entropy", optimizer="sgd(lr=1e-4)")
    made = treated(evidence_of(run, seconds=-1), findings, cases, "mine.py")
    assert made is not None and made.before == () and made.settings == {"optimizer": "sgd(lr=0.1)"}
    assert "no time was left" in made.left_out[0]
    assert "# Not proved in this form: no time was left to replay it." in text_of(made)


def test_nothing_helped() -> None:
    evidence, cases, findings = slow_and(times_lr(1000.0))
    cases[0].trials.clear()
    assert treated(evidence, findings, cases, "mine.py") is None


def test_a_run_s_own_choices_are_in_the_file() -> None:
    evidence, cases, findings = slow_and(times_lr(1000.0))
    base = {"optimizer": "sgd(lr=1e-4)", "epochs": 5, "loss": "cross_entropy()"}
    made = treated(evidence, findings, cases, "mine.py", base)
    assert made is not None
    assert made.settings == {**base, "optimizer": "sgd(lr=0.1)"}


BOTH = Treated(
    task="mine\nepochs = 9.py",
    settings={"optimizer": "sgd(lr=0.1)", "regularize": ["dropout(0)"]},
    remedies=(
        Remedy("LR-HIGH", "lr-too-high", "", TRIAL, ("optimizer",), False),
        Remedy("HEAD-SOFTMAX", "double-softmax", "layer\n3", TRIAL, (), True),
    ),
    left_out=("DATA-INPUTS unscaled-inputs, standardise: worse",),
    before=(0.9,),
    after=(0.1,),
    measure="1 - accuracy",
)


def test_the_text_is_toml_and_says_all_of_it() -> None:
    text = text_of(BOTH)
    assert tomllib.loads(text) == BOTH.settings  # a name with a line end in it begins no line
    for words in (
        "Replayed as it stands here: 1 - accuracy 0.9 without, 0.1 with it",
        "To be made by hand",
        "HEAD-SOFTMAX double-softmax: lower the learning rate to 1/10 of it. Seen in layer 3.",
        "over 3 seeds: 0.9, 0.8, 0.9 without, 0.1, 0.2, 0.1 with it; 0.8, 0.9, 0.7 with a control",
        "DATA-INPUTS unscaled-inputs, standardise: worse",
    ):
        assert words in text, words


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    found, path = Diagnosis("mine", treated=BOTH), tmp_path / "new" / "treated.toml"
    assert found.apply(path) == path
    written = path.read_bytes()
    assert found.apply(str(path)) == path  # the same
    path.write_text("epochs = 3\n")
    with pytest.raises(ArgumentError, match="holds something else") as told:
        found.apply(path)
    assert str(path) in str(told.value) and "name another file" in str(told.value)
    assert path.read_text() == "epochs = 3\n" and written
    assert [p.name for p in path.parent.iterdir()] == ["treated.toml"]
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        found.apply(path / "below")


def test_nothing_to_apply() -> None:
    with pytest.raises(ArgumentError, match="there is nothing to apply"):
        Diagnosis("mine").apply("x.toml")


def test_the_json_has_the_treated_program() -> None:
    plain = json.loads(to_strict_json(Diagnosis("mine", treated=BOTH).to_json()))
    assert plain["treated"]["settings"] == BOTH.settings
    assert plain["treated"]["remedies"][1]["by_hand"] is True
    assert json.loads(to_strict_json(Diagnosis("mine").to_json()))["treated"] is None


def command(*words: str) -> Any:
    return CliRunner().invoke(build_app(), list(words), prog_name="ravine")


def written_task(folder: Path, rate: str, layers: str) -> Path:
    file = folder / "mine.py"
    file.write_text(TASK.replace("RATE", rate).replace("LAYERS", layers))
    return file


@pytest.mark.slow
def test_the_configuration_runs_and_gives_the_better_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written_task(tmp_path, "1e-4", "[]")
    source = file.read_text()
    result = command("diagnose", "mine.py", "--apply", "treated.toml", "--budget", "40")
    assert result.exit_code == 1, result.output
    assert "ravine train mine.py --config treated.toml" in result.stdout
    settings = tomllib.loads(Path("treated.toml").read_text())
    assert settings and set(settings) <= {"optimizer", "epochs"}
    plain = ravine.train("mine.py")
    better = ravine.train("mine.py", **ravine.read_config("treated.toml"))
    X, y = ravine.tasks.load_task("wine", 0).valid
    right = [float((one.model(X).argmax(1) == y).double().mean()) for one in (plain, better)]
    assert right[0] < 0.7 and right[1] > 0.85
    run = command("train", "mine.py", "--config", "treated.toml", "--run-dir", "run", "--json")
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["metrics"] == better.metrics
    assert file.read_text() == source
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix) == ["mine.py", "treated.toml"]


@pytest.mark.slow
def test_what_no_configuration_can_say_is_told_and_written_as_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written_task(
        tmp_path, "0.1", "(m for _ in range(9) for m in (nn.Linear(16, 16), nn.Sigmoid()))"
    )
    result = command("diagnose", "mine.py", "--apply", "treated.toml", "--budget", "40", "--json")
    plain = json.loads(result.stdout)  # stdout is JSON alone
    by_hand = [one for one in plain["treated"]["remedies"] if one["by_hand"]]
    assert by_hand
    assert f"by hand, for {by_hand[0]['code']}: {by_hand[0]['trial']['remedy']}" in result.stderr
    text = Path("treated.toml").read_text()
    assert tomllib.loads(text) == plain["treated"]["settings"]
    assert by_hand[0]["trial"]["remedy"] in text and "# To be made by hand" in text


def test_an_interruption_on_the_way_to_the_file_keeps_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["ravine.diagnose.diagnose"], "treated", stop)
    words = ("diagnose", "wine", "--budget", "0", "--apply", str(tmp_path / "x.toml"), "--json")
    result = command(*words)
    assert result.exit_code == 130 and json.loads(result.stdout)["interrupted"] is True
    assert "it was interrupted before" in result.stderr and not list(tmp_path.iterdir())


def test_apply_takes_no_selection() -> None:
    result = command("diagnose", "wine", "--apply", "x.toml", "--ignore", "LR-LOW")
    assert result.exit_code == 2 and "leave --select" in result.output


def test_a_head_is_by_hand() -> None:
    run = program(clusters(200), lambda: net(3, 8, 3, head=nn.Sigmoid()), "cross_entropy",
                  optimizer="sgd(lr=0.3)", epochs=2)  # fmt: skip
    tried = Trial(LINEAR_HEAD.says, HELPS.before, HELPS.after, HELPS.measure, True)
    case = Case(Suspicion(Finding("wrong-output-activation", "critical", "high", "made"),
                          (LINEAR_HEAD,)), [tried])  # fmt: skip
    made = treated(evidence_of(run), [case.finding], [case], "mine.py")
    assert made is not None and made.settings == {}
    assert [one.by_hand for one in made.remedies] == [True]
