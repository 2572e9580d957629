"""The Trainer of Hugging Face with our optimizer, loss and schedule: a small language model of characters."""

import torch
import transformers
from sklearn.datasets import load_digits
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from ravine.losses import linear_cross_entropy
from ravine.optim import AdamW, ScheduleLR
from ravine.schedules import cosine, warmup


class LlamaForCausalLMWithoutLogits(LlamaForCausalLM):
    """A Llama whose loss is computed without its logits, as the mean over all tokens of a step."""

    def forward(self, input_ids, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None:
            return super().forward(input_ids, **kwargs)
        hidden = self.model(input_ids, **kwargs).last_hidden_state
        loss = linear_cross_entropy(
            hidden[:, :-1], self.lm_head.weight, labels[:, 1:], normalizer=num_items_in_batch
        )
        return CausalLMOutput(loss=loss)


def main() -> None:
    transformers.set_seed(0)
    text = torch.tensor([code for code in load_digits().DESCR.encode() if code < 128])
    windows = text[: len(text) // 32 * 32].view(-1, 32)
    data = [{"input_ids": window, "labels": window} for window in windows]
    model = LlamaForCausalLMWithoutLogits(
        LlamaConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=32,
        )
    )  # fmt: skip
    optimizer = AdamW(
        model.parameters(), lr=warmup(5) >> cosine(35, peak=1e-2), weight_decay=0.1, clip_norm=1.0
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir="trainer_output",
            use_cpu=True,
            max_grad_norm=0.0,  # their clipping off: clip_norm is in the same pass
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_steps=40,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data,
        # The schedule is the optimizer's lr; the second shows it where the Trainer looks for it.
        optimizers=(optimizer, ScheduleLR(optimizer)),
    )
    trainer.train()
    print(optimizer.explain())


if __name__ == "__main__":
    main()
