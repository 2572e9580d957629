"""Texts: windows of characters against Python's own string, the task of a file, its memory."""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from pathlib import Path

import pytest
import torch
from data_cases import TEXT

import ravine
from ravine.data import Characters
from ravine.errors import ArgumentError, DataError
from ravine.tasks import load_task
from ravine.tasks.text import documentation_text

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

TEXTS = {
    "ascii": "the quick brown fox jumps over the lazy dog\n" * 5,
    "accents": TEXT,
    "asian": "汉字と仮名が混ざる文。" * 20,
    "emoji": "🏊🏽‍♀️ a" * 40,
    "line ends": "a\r\nb\rc\n\ufeff\x00" * 30,
}


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("chunk", [1, 3, 1 << 18])
@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("name", TEXTS)
def test_windows_are_those_of_the_string(
    name: str, length: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXTS[name]
    monkeypatch.setattr("ravine.data.characters._CHUNK", chunk)
    source = Characters(written(tmp_path / "t.txt", text), length)
    assert source.alphabet == "".join(sorted(set(text)))
    assert source.characters == len(text)
    assert source.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert len(source) == (len(text) - 1) // length
    inputs, targets = source.take(torch.arange(len(source)))
    for row in range(len(source)):
        at = row * length
        assert "".join(source.alphabet[k] for k in inputs[row]) == text[at : at + length]
        assert "".join(source.alphabet[k] for k in targets[row]) == text[at + 1 : at + length + 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"abc" * 90 + b"\xff" + b"abc" * 90, ["not UTF-8", "byte 270", "0xff", "iconv"]),
        (b"abc" * 90 + "ü".encode()[:1], ["not UTF-8", "byte 270", "unexpected end"]),
        (b"", ["shorter than a window", "0 characters", "8 at least"]),
        ("üüüüüüü".encode(), ["shorter than a window", "7 characters", "8 at least"]),
    ],
    ids=["latin", "cut", "empty", "short"],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_texts_that_cannot_be_read_are_refused(
    content: bytes, words: list[str], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ravine.data.characters._CHUNK", chunk)
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as told:
        Characters(path, length=7)
    assert all(word in str(told.value) for word in [*words, str(path)]), str(told.value)


def test_a_missing_text_and_a_bad_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)text cannot be read.*none.txt.*No such file"):
        Characters(tmp_path / "none.txt", length=7)
    with pytest.raises(ArgumentError, match="length of a window cannot be used"):
        Characters(tmp_path / "none.txt", length=0)


@pytest.mark.parametrize(
    ("after", "window"),
    [(TEXT[:40], 5), (TEXT.replace("B", "!"), 0), (TEXT.replace("j", "!"), 2), ("", 0)],
)
def test_a_text_that_changes_under_the_run_is_told(after: str, window: int, tmp_path: Path) -> None:
    """The place is the first window that holds what was not there."""
    path = written(tmp_path / "t.txt", TEXT)
    source = Characters(path, length=7)
    written(path, after)
    place = len(TEXT[: 7 * window].encode())
    with pytest.raises(DataError, match=rf"(?s)has changed since.*t.txt, byte {place}\n.*sha256"):
        source.take(torch.arange(len(source)))


# The task of a file


def test_a_text_file_is_a_task_whose_parts_share_no_target(tmp_path: Path) -> None:
    text = documentation_text()[:60_000]
    path = written(tmp_path / "mine.txt", text)
    task = load_task(str(path), seed=1)
    assert (task.name, task.facts["characters"]) == ("mine", 60_000)
    places = Characters(path, length=64)
    windows = {tuple(x.tolist()): k for k, x in enumerate(places.take(torch.arange(937))[0])}
    seen: list[int] = []
    for part in (task.train, task.valid, task.test):
        inputs, targets = part.take(torch.arange(len(part)))
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        seen += [windows[tuple(x.tolist())] for x in inputs]
    assert sorted(seen) == sorted(windows.values())
    assert len(task.valid) in range(64, 97)
    record = ravine.train(task, epochs=1, seed=1)
    assert record.metrics["train/loss"] < math.log(task.facts["alphabet"]) - 0.3
    again = load_task(path, seed=1)
    assert torch.equal(*(t.train.take(torch.tensor([5]))[0] for t in (task, again)))


def test_a_short_text_is_split_in_shorter_sections(tmp_path: Path) -> None:
    task = load_task(written(tmp_path / "s.txt", documentation_text()[:2000]))
    assert [len(part) for part in (task.train, task.valid, task.test)] == [26, 2, 3]
    with pytest.raises(ArgumentError, match="too few rows to split"):
        load_task(written(tmp_path / "s.txt", documentation_text()[:300]))
    with pytest.raises(DataError, match="text cannot be read"):
        load_task("nowhere.txt")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fifty_million_characters_take_less_than_500_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    found = importlib.import_module("text_memory").peaks(50_000_000, steps=11, rows_read=512)
    assert found["characters"] == 50_000_000
    assert found["trained_mb"] < 500
    # All its batches were read once, and none of it stayed.
    assert found["streamed_mb"] < found["task_made_mb"] + 20
