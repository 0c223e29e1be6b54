"""A small checkpoint with a tokenizer and a pool, written once per session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from adapruner.config import ModelConfig
from adapruner.data.pool import Pool, TestTexts, write_finetune_rows
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.models.storage.checkpoint import load_model
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from tests.models import BASE, small_model, tokens


@dataclass(frozen=True)
class Workplace:
    """Directories of a checkpoint and a pool, and the settings of the model."""

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


def write_importance(work: Workplace, out: Path, reference_size: int = 4, seed: int = 0) -> None:
    """Writes the importance table of the workplace to the existing directory `out`."""
    pool = Pool.read(work.pool)
    reference = reference_subset(len(pool.calibration), reference_size, seed)
    model = load_model(work.checkpoint, work.model)
    importance_table(model, pool.calibration, reference, pool.calibration_domain).write(out)


def write_gram_matrices(work: Workplace, out: Path) -> None:
    """Writes the gram matrices of the workplace to the existing directory `out`."""
    pool = Pool.read(work.pool)
    compute_gram_matrices(load_model(work.checkpoint, work.model), pool.update, pool.domain, out)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("workplace")
    checkpoint, directory = root / "checkpoint", root / "pool"
    directory.mkdir()
    small_model("llama").save_pretrained(checkpoint)
    write_tokenizer(checkpoint)
    calibration = tokens(12, 16)
    pool = Pool(
        calibration=calibration,
        domain=torch.tensor([0] * 6 + [1] * 6 + [0] * 2 + [1] * 2, dtype=torch.int32),
        update=torch.cat([calibration, tokens(4, 16, seed=3)]),
        objective=tokens(6, 16, seed=1),
        held_out=tokens(6, 16, seed=2),
    )
    pool.write(directory)
    words = [f"w{i % 90 + 3}" for i in range(0, 4000, 7)]
    write_finetune_rows(directory, [{"text": " ".join(words)}])
    TestTexts(texts={"made": " ".join(words[:200])}).write(directory)
    return Workplace(checkpoint, directory, ModelConfig(source=str(checkpoint), device="cpu"))
