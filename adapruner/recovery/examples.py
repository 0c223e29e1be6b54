"""What is trained on: the fine-tune split as examples, and batches of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.errors import UserError

IGNORE = -100
"""Label of a token whose prediction is not trained on."""

PROMPTS = {
    True: "Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    False: "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
}
"""The Alpaca prompt with and without an input, the format that such rows are made for."""

Example = tuple[list[int], list[int]]


def chosen_examples(pool: Path, tokenizer: Any, length: int, most: int) -> list[Example]:
    """The first `most` examples of `finetune.jsonl` of `pool`, which is in seeded order.

    Raises UserError when there are none.
    """
    examples = encode_rows(read_examples(pool / "finetune.jsonl"), tokenizer, length)
    if not examples:
        raise UserError(
            f"the fine-tune split holds no example of {length} tokens; give more texts or lower "
            "finetune.sequence_length"
        )
    return examples[:most]


def read_examples(file: Path) -> list[dict[str, str]]:
    """The rows of a JSON Lines file: a line ends at a line feed alone, as texts hold the others."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def encode_rows(rows: list[dict[str, str]], tokenizer: Any, length: int) -> list[Example]:
    """(tokens, labels) of the rows, at most `length` tokens each.

    Plain texts are joined, an end-of-text token after each, and cut into full windows. An Alpaca
    row is one example whose prompt is not trained on; one without room for a response is dropped.
    """
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream: list[int] = []
    examples: list[Example] = []
    for row in rows:
        if "text" in row:
            stream += tokenizer(row["text"])["input_ids"] + end
            continue
        prompt = tokenizer(PROMPTS[bool(row.get("input"))].format(**row))["input_ids"]
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + end
        tokens = (prompt + answer)[:length]
        labels = ([IGNORE] * len(prompt) + answer)[:length]
        if len(tokens) > len(prompt):
            examples.append((tokens, labels))
    windows = (stream[i : i + length] for i in range(0, len(stream) - length + 1, length))
    return examples + [(window, window) for window in windows]


def batches(examples: list[Example], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of `size` indices into `examples`, shuffled anew each time round."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for i in range(0, len(order) - size + 1, size):
            yield order[i : i + size]


def padded(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, labels and attention mask of the examples, each int64 [B, longest]."""
    longest = max(len(tokens) for tokens, _ in examples)
    return (
        torch.tensor([t + [0] * (longest - len(t)) for t, _ in examples]),
        torch.tensor([y + [IGNORE] * (longest - len(y)) for _, y in examples]),
        torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t, _ in examples]),
    )
