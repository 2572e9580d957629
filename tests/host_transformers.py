"""The Trainer of Hugging Face on a tiny language model, with the weights after every step kept."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from host_cases import snapshot

WORDS = 23


@cache
def transformers() -> Any:
    """Return Transformers, which takes seconds to import; only the tests that need it do."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.set_verbosity_error()
    return transformers


def model(dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Any:
    """Return the same tiny GPT-2 at every call; its head is its embedding."""
    config = transformers().GPT2Config(
        vocab_size=WORDS, n_positions=12, n_embd=16, n_layer=1, n_head=2,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return transformers().GPT2LMHeadModel(config).to(dtype)


def rows(count: int = 32) -> list[dict[str, torch.Tensor]]:
    """Return sentences of 12 words, of which the last few, 0 to 9, are no targets."""
    generator = torch.Generator().manual_seed(7)
    words = torch.randint(WORDS, (count, 12), generator=generator)
    labels = words.clone()
    labels[:, 0] = -100  # nothing comes before it
    for row in range(count):
        labels[row, 12 - row * 3 % 10 :] = -100
    return [{"input_ids": w, "labels": t} for w, t in zip(words, labels, strict=True)]


class Kept:
    """What a run has shown: weights after every step, and what the Trainer logged."""

    def __init__(self, folder: Path, network: Any = None, **options: Any) -> None:
        self.trail: list[list[torch.Tensor]] = []
        kept, hf = self, transformers()

        class Keeping(hf.TrainerCallback):  # type: ignore[misc]
            def on_step_end(
                self, args: Any, state: Any, control: Any, model: Any, **_: Any
            ) -> None:
                kept.trail.append(snapshot(model.parameters()))

        of_trainer = {
            name: options.pop(name)
            for name in ("optimizers", "optimizer_cls_and_kwargs", "compute_loss_func", "callbacks")
            if name in options
        }
        arguments = {
            "use_cpu": True,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            **options,
        }
        callbacks = [Keeping(), *of_trainer.pop("callbacks", [])]
        self.model = model() if network is None else network
        self.trainer = hf.Trainer(
            self.model,
            hf.TrainingArguments(output_dir=str(folder), **arguments),
            train_dataset=rows(),
            eval_dataset=rows(4),
            callbacks=callbacks,
            **of_trainer,
        )
        self.trainer.remove_callback(hf.PrinterCallback)

    def run(self, **options: Any) -> Kept:
        self.trainer.train(**options)
        return self

    def logged(self, name: str) -> list[float]:
        return [entry[name] for entry in self.trainer.state.log_history if name in entry]
