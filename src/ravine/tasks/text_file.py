"""A character model of a text file of one's own, of any size."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from ravine.data import Characters
from ravine.tasks.preparation import split_rows
from ravine.tasks.task import Task
from ravine.tasks.text import BATCH, CONTEXT, SECTION, character_model, character_optimizer


def text_file(path: str | os.PathLike[str], seed: int) -> Task:
    """Predict each next character of a text file, which is read from disk as it is trained on.

    As the task `text`: windows of 64 characters, inputs (N, 64) and targets (N, 64) int64, logits
    (N, 64, V) over the characters that occur, the same model, the loss in nats a character.
    Sections of 2,048 characters (shorter ones in a short text) split 84/8/8; no target of a part
    is one of another. Passages that a text repeats may be in two parts.

    Args:
        path: a UTF-8 text; a few windows of it and 8 bytes for each are in memory.
        seed: decides the split and the initial weights.

    Raises:
        DataError: the file cannot be read, or is not UTF-8. ArgumentError: the text is too short to
            be split.
    """
    text = Characters(path, length=CONTEXT)
    windows = min(SECTION // CONTEXT, max(len(text) // 25, 1))
    sections = len(text) // windows
    split = split_rows(sections, seed, valid=0.08, test=0.08)
    # The last section takes what is left over.
    section_of = (torch.arange(len(text)) // windows).clamp_(max=sections - 1)
    train, valid, test = (
        text.select(torch.nonzero(_marked(sections, chosen)[section_of]).flatten())
        for chosen in (split.train, split.valid, split.test)
    )
    steps = math.ceil(len(train) / BATCH)
    epochs = 4 if steps < 1000 else 1  # the task `text` takes 4 epochs of 153 steps
    return Task(
        name=text.path.stem,
        model=character_model(len(text.alphabet), seed),
        loss="cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer=character_optimizer(steps=epochs * steps),
        epochs=epochs,
        batch_size=BATCH,
        facts={
            "characters": text.characters,
            "alphabet": len(text.alphabet),
            "text_sha256": text.sha256,
        },
    )


def _marked(count: int, chosen: Tensor) -> Tensor:
    marks = torch.zeros(count, dtype=torch.bool)
    marks[chosen] = True
    return marks
