"""A checkpoint directory with a tokenizer, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapruner.data.pools import save_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "checkpoint")
