"""Calibration text that the dense model writes itself, for those who have none.

Each text is sampled from the model's own distribution (temperature 1, nothing cut off), from the
token that stands between documents on, as in LLM-QAT (arXiv 2305.17888), which begins with a random
token; a model without such a token gets that here, too. It is what the model finds likely, not what
its users write: text of theirs is better wherever there is some.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.models import checkpoint as ckpt
from adapruner.config import CalibrationConfig, DeviceConfig
from adapruner.hashing import hash_file
from adapruner.progress import announce, track
from adapruner.data.sources import SELF, TextSource

AT_ONCE = 64
"""Texts that are written at the same time."""

SPARE = 16
"""Tokens more than asked for: text that is read again may have fewer."""


def written(
    sources: dict[str, TextSource],
    checkpoint: Path,
    model: DeviceConfig,
    calibration: CalibrationConfig,
    seed: int,
    out: Path,
) -> dict[str, TextSource]:
    """`sources` with the source `self` as a file `self.jsonl` in the directory `out`."""
    file = out / "self.jsonl"
    write_texts(checkpoint, model, calibration.self_texts, calibration.min_tokens, seed, file)
    found = {"kind": "jsonl", "location": str(file), "content_hash": hash_file(file)}
    return sources | {SELF: sources[SELF].model_copy(update=found)}


def write_texts(
    checkpoint: Path, model: DeviceConfig, count: int, length: int, seed: int, file: Path
) -> None:
    """Writes `count` texts of at least about `length` tokens to `file`, one {"text"} a line."""
    announce(f"texts: the model writes {count} of {length} tokens itself")
    loaded, tokenizer = ckpt.load_model(checkpoint, model), ckpt.load_tokenizer(checkpoint)
    torch.manual_seed(seed)
    with file.open("w", encoding="utf-8") as out:
        for start in track(range(0, count, AT_ONCE), "writing texts"):
            first = _beginnings(tokenizer, len(tokenizer), min(AT_ONCE, count - start))
            for row in _sampled(loaded, first, length + SPARE):
                text = tokenizer.decode(row, skip_special_tokens=True)
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _beginnings(tokenizer: Any, vocabulary: int, count: int) -> Tensor:
    known = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    if known:
        return torch.full((count, 1), known[0])
    return torch.randint(vocabulary, (count, 1))


@torch.inference_mode()
def _sampled(model: Any, first: Tensor, length: int) -> list[list[int]]:
    found = model.generate(
        first.to(model.get_input_embeddings().weight.device),
        attention_mask=torch.ones_like(first),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=length,
        max_new_tokens=length,
        pad_token_id=0,
    )
    rows: list[list[int]] = found[:, 1:].tolist()
    return rows
