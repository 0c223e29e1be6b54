"""Fine-tuning: what is trained on, that it helps, that it is merged, and that it stops on NaN."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner import checkpoint as ckpt
from adapruner.config import FinetuneConfig
from adapruner.errors import UserError
from adapruner.finetune import IGNORE, encode_rows, finetune, read_rows
from adapruner.hashing import hash_directory
from tests.adapruner.conftest import Workplace

SETTINGS = FinetuneConfig(steps=30, batch_size=4, sequence_length=16, rank=4, learning_rate=1e-2)


def test_the_response_alone_is_trained_on(workplace: Workplace) -> None:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    row = {"instruction": "w5", "input": "", "output": "w7 w8"}
    ((tokens, labels),) = encode_rows([row], tokenizer, 100)
    assert tokens[-3:] == labels[-3:] == [7, 8, tokenizer.eos_token_id]
    assert set(labels[:-3]) == {IGNORE}
    assert encode_rows([row], tokenizer, len(tokens) - 3) == [], "no room for the response"


def test_texts_are_joined_and_cut_into_full_windows(workplace: Workplace) -> None:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    windows = encode_rows([{"text": "w5 w6 w7"}, {"text": "w8 w9"}], tokenizer, 3)
    assert windows == [([5, 6, 7], [5, 6, 7]), ([2, 8, 9], [2, 8, 9])]


def test_a_row_may_hold_any_line_separator(workplace: Workplace, tmp_path: Path) -> None:
    text = "w5\u2028w6\u2029w7\x85w8 " * 40
    (tmp_path / "finetune.jsonl").write_text(
        json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (tmp_path / "out").mkdir()
    few = SETTINGS.model_copy(update={"steps": 1, "batch_size": 1})
    finetune(workplace.checkpoint, tmp_path, workplace.model, few, 0, tmp_path / "out")
    assert read_rows(tmp_path / "finetune.jsonl") == [{"text": text}]


def test_it_lowers_the_loss_and_merges_into_plain_weights(
    workplace: Workplace, tmp_path: Path
) -> None:
    work = workplace
    finetune(work.checkpoint, work.pool, work.model, SETTINGS, 0, tmp_path)
    curve = [row["loss"] for row in json.loads((tmp_path / "curve.json").read_text())]
    assert len(curve) == 30
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert ckpt.inspect(tmp_path / "checkpoint") == ckpt.inspect(work.checkpoint)
    assert not [name for name, _ in tuned.named_parameters() if "lora" in name]


def test_the_same_seed_gives_the_same_weights(workplace: Workplace, tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        few = SETTINGS.model_copy(update={"steps": 3})
        finetune(workplace.checkpoint, workplace.pool, workplace.model, few, seed, tmp_path / name)
        hashes.append(hash_directory(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_stops_at_a_loss_that_is_not_finite(workplace: Workplace, tmp_path: Path) -> None:
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(UserError, match=r"loss of fine-tuning step \d+ is (nan|inf)"):
        finetune(workplace.checkpoint, workplace.pool, workplace.model, wild, 0, tmp_path)


def test_weights_stay_in_the_type_they_are_stored_in(workplace: Workplace, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(workplace.checkpoint, half)
    model = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float16)
    model.save_pretrained(half)
    few, out = SETTINGS.model_copy(update={"steps": 2}), tmp_path / "out"
    out.mkdir()
    in_bfloat16 = workplace.model.model_copy(update={"dtype": "bfloat16"})
    finetune(half, workplace.pool, in_bfloat16, few, 0, out)
    tuned = AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    assert tuned.dtype == torch.float16
    embedding = tuned.get_input_embeddings().weight
    assert torch.equal(embedding, model.get_input_embeddings().weight), "it was not trained"


def test_none_passes_the_checkpoint_on(workplace: Workplace, tmp_path: Path) -> None:
    off = FinetuneConfig(method="none")
    finetune(workplace.checkpoint, workplace.pool, workplace.model, off, 0, tmp_path)
    assert hash_directory(tmp_path / "checkpoint") == hash_directory(workplace.checkpoint)


def test_too_few_examples_are_refused(workplace: Workplace, tmp_path: Path) -> None:
    many = SETTINGS.model_copy(update={"batch_size": 500})
    with pytest.raises(UserError, match="a batch needs 500"):
        finetune(workplace.checkpoint, workplace.pool, workplace.model, many, 0, tmp_path)
