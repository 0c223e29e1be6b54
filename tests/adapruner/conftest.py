"""A small checkpoint with a tokenizer and a pool, made once a session, as files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from adapruner.config import ModelConfig
from tests.models import BASE, small_model, tokens


@dataclass(frozen=True)
class Workplace:
    checkpoint: Path
    pool: Path
    model: ModelConfig


def write_tokenizer(directory: Path) -> None:
    """A tokenizer whose word `w7` is token 7."""
    vocabulary = {f"w{i}": i for i in range(BASE["vocab_size"])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w0"
    ).save_pretrained(directory)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("workplace")
    checkpoint, pool = root / "checkpoint", root / "pool"
    pool.mkdir()
    small_model("llama").save_pretrained(checkpoint)
    write_tokenizer(checkpoint)
    calibration = tokens(12, 16)
    pool_texts = {
        "calibration": calibration,
        "source": torch.tensor([0] * 6 + [1] * 6),
        "update": torch.cat([calibration, tokens(4, 16, seed=3)]),
        "objective": tokens(6, 16, seed=1),
        "held_out": tokens(6, 16, seed=2),
    }
    save_file(pool_texts, pool / "pool.safetensors")
    words = [f"w{i % 90 + 3}" for i in range(0, 4000, 7)]
    (pool / "finetune.jsonl").write_text(json.dumps({"text": " ".join(words)}) + "\n")
    (pool / "test.json").write_text(json.dumps({"made": " ".join(words[:200])}))
    return Workplace(checkpoint, pool, ModelConfig(source=str(checkpoint), device="cpu"))
