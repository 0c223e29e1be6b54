"""What the dense model expects after each token of the examples, computed once and kept on disk.

Recovery by distillation needs the dense model's distributions. They depend on the dense model and
the examples alone, so they are a stage of their own: whatever is pruned and however it is tuned,
the dense model runs over the examples once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adapruner.models import checkpoint as ckpt
from adapruner.config import TeacherConfig, ModelConfig
from adapruner.recovery.examples import Example, chosen_examples, padded
from adapruner.progress import announce, track
from adapruner.evaluation.divergence import Likely, likeliest

FILE = "expected.safetensors"
AT_ONCE = 8
"""Examples of one forward pass."""


def expect(
    dense: Path,
    pool: Path,
    model: ModelConfig,
    wanted: TeacherConfig | None,
    out: Path,
) -> None:
    """Writes `expected.safetensors` and `summary.json` to `out`; with None, only that none is.

    `tokens` int32 and `logs` float16, [P, K], hold the K likeliest next tokens and their log
    probabilities in nats, for all positions but the last of all examples, one after the other.
    """
    if wanted is None:
        (out / "summary.json").write_text(json.dumps({"examples": 0}) + "\n", encoding="utf-8")
        return
    given = (wanted.sequence_length, wanted.examples)
    examples = chosen_examples(pool, ckpt.load_tokenizer(dense), *given)
    found = expected(ckpt.load_model(dense, model), examples, wanted.top_k)
    save_file({"tokens": found.tokens, "logs": found.logs.half()}, out / FILE)
    summary = {"examples": len(examples), "positions": len(found.tokens), "top_k": wanted.top_k}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def expected(model: Any, examples: list[Example], count: int) -> Likely:
    """By position, as `expect` writes it: [P, K]."""
    positions = sum(len(tokens) - 1 for tokens, _ in examples)
    announce(
        f"distillation: the dense model over {positions:,} tokens, "
        f"{positions * count * 6 / 2**20:.0f} MiB on disk"
    )
    parts = []
    for start in track(range(0, len(examples), AT_ONCE), "dense model"):
        batch = examples[start : start + AT_ONCE]
        found = likeliest(model, padded(batch)[0], count)
        for row, (tokens, _) in enumerate(batch):
            own = slice(0, len(tokens) - 1)
            parts.append(Likely(found.tokens[row, own], found.logs[row, own]))
    return Likely(torch.cat([p.tokens for p in parts]), torch.cat([p.logs for p in parts]))


def read_expected(directory: Path) -> Likely:
    """What `expect` wrote."""
    content = load_file(directory / FILE)
    return Likely(content["tokens"], content["logs"].float())


def rows_of(known: Likely, examples: list[Example], indices: list[int]) -> Likely:
    """The rows of `known` that belong to the examples of these indices: [p, K]."""
    starts = [0]
    for tokens, _ in examples:
        starts.append(starts[-1] + len(tokens) - 1)
    picked = torch.cat([torch.arange(starts[n], starts[n + 1]) for n in indices])
    return Likely(known.tokens[picked], known.logs[picked])
