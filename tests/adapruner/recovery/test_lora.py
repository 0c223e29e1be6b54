"""Fine-tuning: what is trained on, that it helps, that it is merged, and that it stops on NaN."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.models import checkpoint as ckpt
from adapruner.config import FinetuneConfig
from adapruner.errors import UserError
from adapruner.recovery.examples import IGNORE, encode_rows, read_examples
from adapruner.recovery.teacher_logits import expect, expected, rows_of
from adapruner.recovery.lora import finetune, token_loss
from adapruner.hashing import hash_directory
from adapruner.evaluation.divergence import Likely
from tests.adapruner.conftest import Workplace

SETTINGS = FinetuneConfig(
    loss="data", steps=30, batch_size=4, sequence_length=16, rank=4, learning_rate=1e-2
)


def tune(
    work: Workplace, settings: FinetuneConfig, seed: int, out: Path, dense: Path | None = None
) -> None:
    expected = out.with_name(f"{out.name}-expected")
    expected.mkdir()
    wanted = settings.teacher
    expect(dense or work.checkpoint, work.pool, work.model, wanted, expected)
    finetune(work.checkpoint, expected, work.pool, work.model, settings, seed, out)


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
    shutil.copy(workplace.pool / "pool.safetensors", tmp_path)
    text = "w5\u2028w6\u2029w7\x85w8 " * 40
    (tmp_path / "finetune.jsonl").write_text(
        json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (tmp_path / "out").mkdir()
    few = SETTINGS.model_copy(update={"steps": 1, "batch_size": 1})
    tune(replace(workplace, pool=tmp_path), few, 0, tmp_path / "out")
    assert read_examples(tmp_path / "finetune.jsonl") == [{"text": text}]


def test_it_lowers_the_loss_and_merges_into_plain_weights(
    workplace: Workplace, tmp_path: Path
) -> None:
    work = workplace
    tune(work, SETTINGS, 0, tmp_path)
    curve = [row["loss"] for row in json.loads((tmp_path / "curve.json").read_text())]
    assert len(curve) == 30
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert ckpt.inspect(tmp_path / "checkpoint") == ckpt.inspect(work.checkpoint)
    assert not [name for name, _ in tuned.named_parameters() if "lora" in name]


def test_distillation_is_the_divergence_from_the_dense_model() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    labels = torch.tensor([[3, 1, 4, 1, IGNORE], [IGNORE, IGNORE, 6, 2, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    logs = torch.cat([teacher[0, :3], teacher[1, :4]]).log_softmax(-1)
    for count in (7, 3):
        top = logs.topk(count)
        known = Likely(top.indices.int(), top.values)
        by_hand = []
        for row, at in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4)):
            p, q = teacher[row, at - 1].softmax(-1), student[row, at - 1].softmax(-1)
            kept = p.topk(count).indices
            groups = [(float(p[k]), float(q[k])) for k in kept]
            if count < 7:
                groups.append((1 - sum(a for a, _ in groups), 1 - sum(b for _, b in groups)))
            by_hand.append(sum(a * math.log(a / b) for a, b in groups))
        mean = sum(by_hand) / len(by_hand)
        found = float(token_loss(student, labels, mask, known))
        assert found == pytest.approx(mean, rel=1e-4)
        assert float(token_loss(teacher, labels, mask, known)) == pytest.approx(0, abs=1e-5)


def test_expectations_of_examples_of_different_lengths_are_told_apart(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    examples = [([5, 6, 7, 8], [5, 6, 7, 8]), ([9, 10], [9, 10]), ([3, 4, 5], [3, 4, 5])]
    known = expected(model, examples, 5)
    for number, (tokens, _) in enumerate(examples):
        alone = expected(model, [examples[number]], 5)
        mine = rows_of(known, examples, [number])
        assert len(mine.tokens) == len(tokens) - 1
        assert torch.equal(mine.tokens, alone.tokens)
        torch.testing.assert_close(mine.logs, alone.logs)


def test_distillation_brings_a_damaged_model_back(workplace: Workplace, tmp_path: Path) -> None:
    damaged, out = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(workplace.checkpoint, damaged)
    model = AutoModelForCausalLM.from_pretrained(damaged)
    for name, weight in model.named_parameters():
        if "down_proj" in name:
            weight.data.mul_(0.5)
    model.save_pretrained(damaged)
    out.mkdir()
    distill = SETTINGS.model_copy(update={"loss": "distill", "steps": 60, "learning_rate": 2e-3})
    tune(replace(workplace, checkpoint=damaged), distill, 0, out, dense=workplace.checkpoint)
    curve = [row["loss"] for row in json.loads((out / "curve.json").read_text())]
    assert 0 < sum(curve[-5:]) < 0.6 * sum(curve[:5])


def test_the_same_seed_gives_the_same_weights(workplace: Workplace, tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        few = SETTINGS.model_copy(update={"steps": 3})
        tune(workplace, few, seed, tmp_path / name)
        hashes.append(hash_directory(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_stops_at_a_loss_that_is_not_finite(workplace: Workplace, tmp_path: Path) -> None:
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(UserError, match=r"loss of fine-tuning step \d+ is (nan|inf)"):
        tune(workplace, wild, 0, tmp_path)


def test_weights_stay_in_the_type_they_are_stored_in(workplace: Workplace, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(workplace.checkpoint, half)
    model = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float16)
    model.save_pretrained(half)
    few, out = SETTINGS.model_copy(update={"steps": 2}), tmp_path / "out"
    out.mkdir()
    in_bfloat16 = workplace.model.model_copy(update={"dtype": "bfloat16"})
    tune(replace(workplace, checkpoint=half, model=in_bfloat16), few, 0, out)
    tuned = AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    assert tuned.dtype == torch.float16
    embedding = tuned.get_input_embeddings().weight
    assert torch.equal(embedding, model.get_input_embeddings().weight), "it was not trained"


def test_none_passes_the_checkpoint_on(workplace: Workplace, tmp_path: Path) -> None:
    off = FinetuneConfig(method="none")
    tune(workplace, off, 0, tmp_path)
    assert hash_directory(tmp_path / "checkpoint") == hash_directory(workplace.checkpoint)


def test_too_few_examples_are_refused(workplace: Workplace, tmp_path: Path) -> None:
    many = SETTINGS.model_copy(update={"batch_size": 500})
    with pytest.raises(UserError, match="a batch needs 500"):
        tune(workplace, many, 0, tmp_path)
