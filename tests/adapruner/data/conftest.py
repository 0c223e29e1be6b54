"""A checkpoint directory with config and tokenizer, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig

from tests.adapruner.data.pools import save_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "checkpoint")
    LlamaConfig(vocab_size=len(AutoTokenizer.from_pretrained(directory))).save_pretrained(directory)
    return directory
