"""Otoscope in Hugging Face's Trainer: one callback, nothing else.

pip install transformers accelerate
python examples/huggingface.py
python examples/huggingface.py --lr 3     # too high; see what Otoscope says
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from otoscope.callbacks.huggingface import OtoscopeCallback
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

WORDS, LENGTH = 31, 16


class Counting(Dataset[dict[str, torch.Tensor]]):
    """Rows that count in steps of one to four, modulo 31: the next number can be told."""

    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randint(0, WORDS, (rows, 1), generator=generator)
        stride = torch.randint(1, 5, (rows, 1), generator=generator)
        self.rows = (start + stride * torch.arange(LENGTH)) % WORDS

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[row], "labels": self.rows[row]}


def main(steps: int, lr: float, seed: int) -> str:
    """Train a small GPT-2 from scratch and return the run's id."""
    set_seed(seed)
    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        learning_rate=lr,
        per_device_train_batch_size=32,
        eval_strategy="steps",
        eval_steps=max(1, steps // 2),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )
    otoscope = OtoscopeCallback(run="counting", task="language-model")
    trainer = Trainer(
        GPT2LMHeadModel(config),  # type: ignore[arg-type]
        arguments,
        train_dataset=Counting(4096, seed),  # type: ignore[arg-type]
        eval_dataset=Counting(256, seed + 1),  # type: ignore[arg-type]
        callbacks=[otoscope],
    )
    trainer.train()
    return str(otoscope.run_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small GPT-2 to count.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("run", main(given.steps, given.lr, given.seed))
