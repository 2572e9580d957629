"""A run that goes on is refused where its data is not what it began with, and told what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import mapped, parquet
from test_training_resume import broken_off, check, made
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from training_cases import FORMS, points, task

import ravine
from ravine.data import Arrays, Characters, Source, Table, Tokens
from ravine.data.fingerprint import BLOCK, WHOLE, of_array, of_files, of_values
from ravine.errors import ResumeError
from ravine.training.same_data import fingerprints

CHECKED = {"tensors", "tensor dataset", "loader", "loader with a batch sampler"}
"""The forms whose content is known without reading rows."""


def refused(made: ravine.Task, run_dir: Path, *words: str) -> str:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError, match="the data differs") as caught:
        ravine.train(made, resume=run_dir)
    said = str(caught.value)
    for word in words:
        assert word in said, said
    after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert after == before  # nothing was moved, nothing was written
    return said


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch, made: ravine.Task, **more: Any) -> Path:
    broken_off(monkeypatch, 3, made, run_dir=folder, checkpoint_every=1, **more)
    return folder


def other(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    X, y = points()
    if name == "one label":
        y = y.clone()
        y[17] = (y[17] + 1) % 3
    elif name == "one value":
        X = X.clone()
        X[39, 3] += 1e-3
    elif name == "order":
        X, y = X.flip(0), y.flip(0)
    elif name == "shorter":
        X, y = X[:-1], y[:-1]
    else:
        X = X.double().float() + 0.0 if name == "same" else X * 2
    return X, y


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["one label", "one value", "order", "shorter", "scaled"])
def test_other_rows_are_refused_in_every_form_that_can_tell(
    form: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"batch_size": None} if form.startswith("loader") else {}
    begun(tmp_path, monkeypatch, made(form), **own)
    changed = task(train=FORMS[form](other(name)))
    if form in CHECKED:
        refused(changed, tmp_path, "train", "sha256")
    elif name == "shorter" and form == "dataset":
        refused(changed, tmp_path, "train rows: 39", "train rows: 40")
    else:
        ravine.train(changed, resume=tmp_path)
        assert "sha256" not in json.dumps(fingerprints(changed)["train"])


def test_the_error_shows_both_and_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    begun(tmp_path, monkeypatch, made())
    said = refused(task(train=points(50)), tmp_path)
    assert "got:      train X: shape [50, 4], dtype float32, sha256 " in said
    assert "expected: train X: shape [40, 4], dtype float32, sha256 " in said
    assert "train y: shape [50], dtype int64" in said
    assert "give the data as it was, or start a new run" in said


def test_validation_data_counts_and_test_data_does_not(tmp_path: Path, monkeypatch: Any) -> None:
    whole = ravine.train(
        made(), resume=begun(tmp_path / "whole", monkeypatch, made(), regularize=())
    )
    begun(tmp_path / "run", monkeypatch, made(), regularize=())
    refused(task(valid=points(21, seed=1)), tmp_path / "run", "valid X: shape [21, 4]")
    refused(task(valid=None), tmp_path / "run", "valid: none")
    more = ravine.train(task(test=points(9, seed=2)), resume=tmp_path / "run")
    assert more.history.column("valid/loss") == whole.history.column("valid/loss")


def test_the_same_data_made_again_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    whole = ravine.train(made(), resume=begun(tmp_path / "whole", monkeypatch, made()))
    begun(tmp_path / "run", monkeypatch, made())
    X, y = other("same")
    strided = torch.empty(40, 8)[:, ::2].copy_(X)  # other memory, the same numbers
    check(ravine.train(task(train=(strided, y.numpy())), resume=tmp_path / "run"), whole)


# Files: written into a folder, with one value changed or none


def text(folder: Path, changed: bool) -> Source:
    path = folder / "text.txt"
    path.write_text("in the beginning was the word\n" * 8 + ("ba" if changed else "ab"))
    return Characters(path, 8)


def table(folder: Path, changed: bool) -> Source:
    import pyarrow

    X, y = numbers(changed)
    columns = {name: X[:, k] for k, name in enumerate("abcd")}
    content = pyarrow.table({**columns, "label": y})
    files = [parquet(folder / "0.parquet", content), parquet(folder / "1.parquet", content)]
    return Table(files, inputs=list("abcd"), target="label")


def arrays(folder: Path, changed: bool) -> Source:
    X, y = numbers(changed)
    return Arrays(mapped(folder, "X", X), mapped(folder, "y", y), block=8)


def tokens(folder: Path, changed: bool) -> Source:
    X, _ = numbers(changed)
    return Tokens(mapped(folder, "X", (X * 9).astype(np.int16).ravel()), 8)


def selected(folder: Path, changed: bool) -> Source:
    made = arrays(folder, False)
    assert isinstance(made, Arrays)
    return made.select([3, 1, 5] if changed else [3, 1, 4])


def numbers(changed: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    X, y = (tensor.numpy().copy() for tensor in points())
    X[20, 2] += changed
    return X, y


SOURCES = {
    "text": (text, "characters 242, sha256 "),
    "parquet": (table, "files 2, bytes "),
    "arrays": (arrays, "train X: shape [40, 4], dtype float32, sha256 "),
    "tokens": (tokens, "train tokens: shape [160], dtype int16, sha256 "),
    "selected": (selected, "train selected: shape [3], dtype int64, sha256 "),
}


class Small(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float().flatten(1)[:, :1])


def reading(source: Any) -> ravine.Task:
    def size(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.square().mean()

    torch.manual_seed(0)
    return ravine.Task(model=Small(1, 1), loss=size, train=source)


@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_file_is_refused_and_a_moved_one_is_not(name: str, tmp_path: Path) -> None:
    make, words = SOURCES[name]
    for folder in ("here", "moved", "changed"):
        (tmp_path / folder).mkdir()
    run = tmp_path / "run"
    ravine.train(reading(make(tmp_path / "here", False)), run_dir=run, epochs=1)
    ravine.train(reading(make(tmp_path / "moved", False)), resume=run, epochs=2)
    refused(reading(make(tmp_path / "changed", True)), run, words)


def test_a_source_of_ones_own_says_what_it_knows(tmp_path: Path) -> None:
    class Own(Arrays):
        version = (1, "a")

        def fingerprint(self) -> dict[str, Any]:
            return {"version": self.version}

    X, y = points()
    ravine.train(reading(Own(X, y)), run_dir=tmp_path, epochs=1)
    ravine.train(reading(Own(X, y)), resume=tmp_path, epochs=2)  # a tuple is a list in JSON
    Own.version = (2, "a")
    refused(reading(Own(X, y)), tmp_path, "train version: [2, 'a']", "train version: [1, 'a']")


# What a fingerprint sees


def test_every_byte_of_small_data_counts() -> None:
    array = np.zeros((50, 7), np.int16)
    plain = of_array(array)
    for place in range(array.size):
        one = array.copy()
        one.ravel()[place] = 1
        assert of_array(one) != plain


@pytest.mark.parametrize("kind", [of_array, of_values, "files"])
def test_of_large_data_the_ends_and_the_length_count(kind: Any, tmp_path: Path) -> None:
    def facts(data: np.ndarray[Any, Any]) -> dict[str, Any]:
        if kind == "files":
            half = len(data) // 2
            for name, part in (("0", data[:half]), ("1", data[half:])):
                (tmp_path / name).write_bytes(part.tobytes())
            return of_files([tmp_path / "0", tmp_path / "1"])
        return kind(torch.from_numpy(data))  # type: ignore[no-any-return]

    data = np.arange(WHOLE // 4 + 5 * BLOCK, dtype=np.float32)
    plain = facts(data)
    assert facts(data) == plain
    for place in (0, -1):
        one = data.copy()
        one[place] += 1 + abs(one[place])
        assert facts(one) != plain
    assert facts(data[:-1]) != plain
    assert facts(data[::-1].copy()) != plain
    unseen = data.copy()
    unseen[BLOCK // 4 + 10] += 1  # just behind the first piece: the bound that is documented
    assert facts(unseen) == plain


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64, torch.uint8])
def test_every_dtype_has_a_checksum(dtype: torch.dtype) -> None:
    X = points()[0].to(dtype)
    one = X.clone()
    one[3, 1] = 0 if one[3, 1] else 1
    assert of_values(X)["dtype"] == str(dtype).removeprefix("torch.")
    assert of_values(X)["sha256"] != of_values(one)["sha256"]
    assert of_values(X.conj()) == of_values(X.conj().resolve_conj())


def test_a_loader_and_a_subset_are_seen_through() -> None:
    data: Dataset[Any] = TensorDataset(*points())
    halves = [Subset(data, list(range(20))), Subset(data, list(range(20, 40)))]
    first, second = (fingerprints(task(train=DataLoader(half)))["train"] for half in halves)
    assert first["of"] == second["of"]
    assert first["selected"] != second["selected"]


# Other surroundings


def elsewhere(run_dir: Path) -> None:
    path = run_dir / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(written), encoding="utf-8")


@pytest.mark.parametrize("name", ["scaled", "order", "one label", "shorter"])
def test_other_data_is_refused_on_another_machine_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(begun(tmp_path, monkeypatch, made()))
    refused(task(train=other(name)), tmp_path)


def test_rounding_of_another_machine_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = points()
    rounded = task(train=(X * (1 + 1e-6), y))
    begun(tmp_path, monkeypatch, made())
    refused(rounded, tmp_path, "train X")  # here nothing explains it
    elsewhere(tmp_path)
    seen: list[Any] = []
    ravine.train(rounded, resume=tmp_path, listeners=[seen.append])
    assert any("torch is" in note and "was 1.0" in note for note in seen[0].notes)
    assert any("train X differs" in note and "rounding" in note for note in seen[0].notes)


@pytest.mark.parametrize("data", [None, 3, [], {}, {"train": 1}, {"train": {"X": {"sha256": []}}}])
def test_a_directory_that_does_not_know_its_data(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, monkeypatch, made())
    path = tmp_path / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(written | {"data": data}), encoding="utf-8")
    if isinstance(data, dict):
        refused(made(), tmp_path, "train")
    else:
        seen: list[Any] = []
        ravine.train(made(), resume=tmp_path, listeners=[seen.append])
        assert any("without a fingerprint of its data" in note for note in seen[0].notes)
