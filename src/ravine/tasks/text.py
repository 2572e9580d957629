"""`text`: a character model of English documentation, by a small causal Transformer."""

from __future__ import annotations

import hashlib
import re

import torch
from torch import Tensor

from ravine.tasks.preparation import class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task
from ravine.tasks.transformer import CausalTransformer

CONTEXT = 64
BATCH = 32
SECTION = 32 * CONTEXT  # characters; each section belongs to one part as a whole

# sha256 of documentation_text() of one CPython. The text ships with Python and varies with its
# version, so another hash is no error: the task records the one it met among its facts.
KNOWN_SHA256 = {"3.11.7": "f784d6fb39bdb407417b39889b74209e5327a12c530ac010595a0cb3719c903b"}


def text(seed: int) -> Task:
    """Predict each next character of Python's own documentation (370,000 characters).

    Windows of 64 characters, inputs (N, 64) and targets (N, 64) int64, the targets one character
    ahead; every character is a target once an epoch. Logits are (N, 64, V), classes last. The
    loss is in nats a character. Sections of 2,048 characters split 84/8/8, and passages that the
    documentation repeats were dropped before, so that validation text is not in the training text.

    Source: ``pydoc_data.topics`` of the running CPython; model: Radford et al., "Language models
    are unsupervised multitask learners" (2019), section 2.3, in small.

    >>> task = text(0)
    >>> task.train[0].shape[1], task.train[0].dtype
    (64, torch.int64)
    """
    written = documentation_text()
    alphabet = sorted(set(written))
    number = {character: index for index, character in enumerate(alphabet)}
    codes = torch.tensor([number[character] for character in written])
    # One character more than the windows hold: the last target of a section.
    starts = torch.arange(0, len(codes) - SECTION, SECTION + 1)
    sections = torch.stack([codes[start : start + SECTION + 1] for start in starts])
    split = split_rows(len(sections), seed, valid=0.08, test=0.08)
    train, valid, test = (
        _windows(sections[rows]) for rows in (split.train, split.valid, split.test)
    )
    return Task(
        name="text",
        model=character_model(len(alphabet), seed),
        loss="cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer=character_optimizer(steps=612),
        epochs=4,
        batch_size=BATCH,
        baseline=class_entropy(train[1]),
        facts={
            "characters": len(written),
            "alphabet": len(alphabet),
            "text_sha256": hashlib.sha256(written.encode()).hexdigest(),
        },
    )


def character_model(symbols: int, seed: int) -> CausalTransformer:
    """Return the model of the task, for an alphabet of some size."""
    with seeded(seed):
        return CausalTransformer(symbols, context=CONTEXT, width=128, heads=4, layers=3)


def character_optimizer(*, steps: int) -> str:
    """Return the optimizer of the task, for a run of some steps."""
    warm = min(50, max(steps // 10, 1))
    return (
        f"adamw(lr=warmup({warm}) >> cosine({steps - warm}, peak=4e-3, end=4e-4), "
        "betas=(0.9, 0.98), weight_decay=0.1, clip_norm=1)"
    )


def documentation_text() -> str:
    """Return the topics of Python's help in alphabetical order, each passage once.

    A fifth of the original repeats: the topic ``compound`` holds all of ``if``, ``while``,
    ``for``. Left in, a validation part would be known by heart. Passages are what blank lines
    separate; two are the same if their words are.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    passages: list[str] = []
    for _, topic in sorted(topics.items()):
        for passage in re.split(r"\n\s*\n", topic.strip("\n")):
            words = " ".join(passage.split())
            if words and words not in seen:
                seen.add(words)
                passages.append(passage)
    return "\n\n".join(passages)


def _windows(sections: Tensor) -> tuple[Tensor, Tensor]:
    """Cut (S, SECTION + 1) into inputs and the targets one character ahead, (N, CONTEXT) each."""
    return sections[:, :-1].reshape(-1, CONTEXT), sections[:, 1:].reshape(-1, CONTEXT)
