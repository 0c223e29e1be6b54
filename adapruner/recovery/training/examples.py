"""Training examples of the fine-tune split, and batches of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapruner.data.pool import Pool, read_finetune_rows
from adapruner.errors import UserError

IGNORE = -100
"""Label of a token that is not trained on."""

PROMPTS = {
    True: "Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    False: "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
}
"""The Alpaca prompts with and without an input."""


class Example(NamedTuple):
    """Token ids, and for each the label: itself, or IGNORE."""

    tokens: list[int]
    labels: list[int]


class Batch(NamedTuple):
    """Padded examples: `tokens`, `labels` and attention `mask`, each int64 [B, longest]."""

    tokens: Tensor
    labels: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device) for part in self))


class Selection(NamedTuple):
    """Examples, and how many each domain gave; empty where the rows have no domain."""

    examples: list[Example]
    by_domain: tuple[int, ...]


def select_examples(
    pool: Path, tokenizer: Any, length: int, most: int, shares: Sequence[float] = ()
) -> Selection:
    """The first `most` examples of the pool's fine-tune split, which is in seeded order.

    Rows with a domain give examples of one domain each, in an order whose every prefix has the
    domains' `shares` as far as their texts suffice: what a domain lacks, the others provide. A
    domain with the share 0 gives none. Without `shares` they are those of the calibration pool.

    Raises UserError when there are none.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for row in read_finetune_rows(pool):
        rows.setdefault(row.get("domain", ""), []).append(row)
    encoded = {domain: encode_rows(part, tokenizer, length) for domain, part in rows.items()}
    if "" in encoded:
        selection = Selection(encoded[""][:most], ())
    else:
        by_domain = {int(domain): examples for domain, examples in encoded.items()}
        selection = _mix(by_domain, shares or _pool_shares(pool), most)
    if not selection.examples:
        raise UserError(
            f"the fine-tune split has no example of {length} tokens; use more texts or lower "
            "finetune.sequence_length"
        )
    return selection


def _pool_shares(pool: Path) -> list[int]:
    """The number of samples of each domain in the calibration pool."""
    tokens = Pool.read(pool)
    counts = Counter(tokens.calibration_domain)
    return [counts[domain] for domain in range(int(tokens.domain.max()) + 1)]


def _mix(by_domain: dict[int, list[Example]], shares: Sequence[float], most: int) -> Selection:
    # With the share s, the n-th example of a domain is due when n / s examples are selected.
    order = sorted(
        ((n + 1) / share, domain, n)
        for domain, share in enumerate(shares)
        if share
        for n in range(len(by_domain.get(domain, ())))
    )[:most]
    counts = Counter(domain for _, domain, _ in order)
    examples = [by_domain[domain][n] for _, domain, n in order]
    return Selection(examples, tuple(counts[domain] for domain in range(len(shares))))


def encode_rows(rows: list[dict[str, str]], tokenizer: Any, length: int) -> list[Example]:
    """Examples of at most `length` tokens each.

    Plain texts are joined, each with an end-of-text token, and split into windows of `length`
    tokens. An Alpaca row is one example, whose prompt is not trained on; a row without room for a
    response is dropped.
    """
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream: list[int] = []
    examples: list[Example] = []
    for row in rows:
        if "text" in row:
            stream += tokenizer(row["text"])["input_ids"] + end
            continue
        prompt = tokenizer(PROMPTS[bool(row.get("input"))].format(**row))["input_ids"]
        response = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + end
        labels = [IGNORE] * len(prompt) + response
        if length > len(prompt) and response:
            examples.append(Example((prompt + response)[:length], labels[:length]))
    windows = (stream[i : i + length] for i in range(0, len(stream) - length + 1, length))
    return examples + [Example(window, window) for window in windows]


def batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of `size` of the indices below `count`, reshuffled in every epoch.

    The last indices of an epoch that don't fill a batch are dropped.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        for i in range(0, len(order) - size + 1, size):
            yield order[i : i + size]


def pad(examples: list[Example]) -> Batch:
    """The examples, padded on the right."""
    tokens = [torch.tensor(example.tokens) for example in examples]
    labels = [torch.tensor(example.labels) for example in examples]
    masks = [torch.ones_like(part) for part in tokens]
    return Batch(
        pad_sequence(tokens, batch_first=True),
        pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        pad_sequence(masks, batch_first=True),
    )
