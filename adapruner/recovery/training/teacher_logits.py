"""Teacher logits: the dense model's next-token distributions after each token of the examples.

They depend on the dense model and the examples only, so that they are computed once and shared by
all recoveries by distillation, whatever is pruned and however it is fine-tuned.
"""

from __future__ import annotations

from itertools import accumulate, islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from adapruner.config import DeviceConfig, TeacherConfig
from adapruner.evaluation.divergence import TopLogProbs, batch_log_probs
from adapruner.evaluation.perplexity import batches_of
from adapruner.files import Artifact
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.passes import forward_passes
from adapruner.progress import announce, track
from adapruner.recovery.training.examples import Example, pad, select_examples

FILE = "teacher_logits.safetensors"
BATCH_SIZE = 8
"""Examples per forward pass."""
BYTES_PER_TOKEN = 6
"""In the file: an int32 token and its float16 log probability."""


class TeacherSummary(Artifact):
    """The size of the teacher logits; all zeros where nothing is distilled."""

    FILE: ClassVar[str] = "teacher_logits.json"

    examples: int = 0
    positions: int = 0
    top_k: int = 0


def compute_teacher_logits(
    dense: Path, pool: Path, model: DeviceConfig, teacher: TeacherConfig | None, out: Path
) -> TeacherSummary:
    """Writes `teacher_logits.safetensors` and `teacher_logits.json` to `out`.

    Without `teacher` there is only the latter. Raises UserError when the pool has no example.
    """
    summary = TeacherSummary()
    if teacher is not None:
        tokenizer = ckpt.load_tokenizer(dense)
        examples = select_examples(
            pool, tokenizer, teacher.sequence_length, teacher.examples, teacher.shares
        ).examples
        loaded = load_or_stream(dense, model, "1 read")
        logits = teacher_logits(loaded, examples, teacher.top_k)
        write_teacher_logits(logits, out)
        summary = TeacherSummary(
            examples=len(examples), positions=len(logits.tokens), top_k=teacher.top_k
        )
    summary.write(out)
    return summary


def teacher_logits(model: Any, examples: list[Example], top_k: int) -> TopLogProbs:
    """The `top_k` most likely next tokens at all positions of the examples but their last, [P, K].

    The examples follow one another.
    """
    positions = sum(len(example.tokens) - 1 for example in examples)
    announce(
        f"teacher logits: {positions:,} positions with the dense model, "
        f"{positions * top_k * BYTES_PER_TOKEN / 2**20:.0f} MiB on disk"
    )
    groups = [examples[i : i + BATCH_SIZE] for i in range(0, len(examples), BATCH_SIZE)]
    batches = [batch for group in groups for batch in batches_of(pad(group).tokens)]
    passes, rest, parts = forward_passes(model, batches), iter(examples), []
    for batch in track(passes, "teacher logits", len(batches)):
        top = batch_log_probs(model, batch, top_k)
        for row, example in enumerate(islice(rest, len(batch))):
            end = len(example.tokens) - 1  # what follows is padding
            parts.append(TopLogProbs(top.tokens[row, :end], top.log_probs[row, :end]))
    return TopLogProbs(
        torch.cat([part.tokens for part in parts]), torch.cat([part.log_probs for part in parts])
    )


def write_teacher_logits(logits: TopLogProbs, directory: Path) -> None:
    """Writes `tokens` int32 and `log_probs` float16, in nats, both [P, K]."""
    tensors = {"tokens": logits.tokens, "log_probs": logits.log_probs.half()}
    save_file(tensors, directory / FILE)


def read_teacher_logits(directory: Path) -> TopLogProbs:
    """The logits that `write_teacher_logits` wrote; the log probabilities as float32."""
    tensors = load_file(directory / FILE)
    return TopLogProbs(tensors["tokens"], tensors["log_probs"].float())


def logits_of(logits: TopLogProbs, examples: list[Example], indices: list[int]) -> TopLogProbs:
    """The rows of `logits`, computed for all `examples`, that belong to the examples `indices`."""
    starts = [0, *accumulate(len(example.tokens) - 1 for example in examples)]
    rows = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in indices])
    return TopLogProbs(logits.tokens[rows], logits.log_probs[rows])
