"""Small pools for tests: made-up texts, a small tokenizer, a build in one call."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from adapruner.data.build_pool import build_pool
from adapruner.config import RunConfig
from adapruner.data.sources import resolve_texts

SMALL = {"min_tokens": 16, "sequence_length": 16, "pool_size": 8, "objective_tokens": 64}
TEST = {"sequence_length": 16, "max_windows": 4}


def sentences(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Texts of made-up words, no two of which are alike."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 9))) for _ in range(2000)]
    return [" ".join(rng.choices(vocabulary, k=words)) for _ in range(count)]


def save_tokenizer(folder: Path, *, bos: bool = False) -> Path:
    """A checkpoint directory with a small byte-level tokenizer, trained here."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sentences(50), *["z" * 32] * 200], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    folder.mkdir()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return folder


def jsonl(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def build(
    checkpoint: Path,
    out: Path,
    calibration: dict[str, Any],
    finetune: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Build a pool in `out` and give its summary."""
    config = RunConfig.model_validate(
        {
            "name": "run",
            "seed": seed,
            "model": {"source": "model"},
            "calibration": calibration,
            "finetune": finetune or {},
            "evaluation": evaluation or {},
            "registry": {"name": "model"},
        }
    )
    out.mkdir()
    sources = resolve_texts(config)
    build_pool(
        sources, config.calibration, config.finetune, config.evaluation, checkpoint, seed, out
    )
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary
