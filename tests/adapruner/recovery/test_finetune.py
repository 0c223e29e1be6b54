"""Conformance of every recovery method: checkpoint, result, input and reproducibility."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adapruner.files import read_json
from adapruner.hashing import hash_directory
from adapruner.models.storage.checkpoint import PLAN_FILE, inspect, load_model, load_tokenizer
from adapruner.recovery import METHODS
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.results import CurvePoint, RecoveryResult
from tests.adapruner.conftest import Workplace
from tests.adapruner.recovery.requests import recovered, settings
from tests.models import tokens

FEW = settings(steps=3)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_method_writes_a_checkpoint_of_the_same_shape(
    method: str, workplace: Workplace, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recovered(workplace, FEW.model_copy(update={"method": method}), out)
    checkpoint = out / CHECKPOINT
    assert inspect(checkpoint) == inspect(workplace.checkpoint)
    logits = load_model(checkpoint, workplace.model)(tokens(1, 8).long()).logits
    assert logits.isfinite().all()
    prompt = "w5 w9"
    original = load_tokenizer(workplace.checkpoint)(prompt)["input_ids"]
    assert load_tokenizer(checkpoint)(prompt)["input_ids"] == original


def test_every_method_writes_its_result(method: str, workplace: Workplace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = recovered(workplace, FEW.model_copy(update={"method": method}), out)
    assert RecoveryResult.read(out) == result
    assert result.method == method
    assert [point.step for point in result.curve] == list(range(1, len(result.curve) + 1))
    assert bool(result.examples) == bool(result.curve) == result.is_trained
    changed = hash_directory(out / CHECKPOINT) != hash_directory(workplace.checkpoint)
    assert changed == result.is_trained


def test_every_method_leaves_its_inputs_unchanged(
    method: str, workplace: Workplace, tmp_path: Path
) -> None:
    before = hash_directory(workplace.checkpoint), hash_directory(workplace.pool)
    recovered(workplace, FEW.model_copy(update={"method": method}), tmp_path / "out")
    assert (hash_directory(workplace.checkpoint), hash_directory(workplace.pool)) == before


def test_every_method_is_reproducible(method: str, workplace: Workplace, tmp_path: Path) -> None:
    config = FEW.model_copy(update={"method": method})
    for name in "ab":
        recovered(workplace, config, tmp_path / name, seed=3)
    assert hash_directory(tmp_path / "a") == hash_directory(tmp_path / "b")


def test_every_method_copies_the_pruning_plan(
    method: str, workplace: Workplace, tmp_path: Path
) -> None:
    pruned = tmp_path / "pruned"
    shutil.copytree(workplace.checkpoint, pruned)
    (pruned / PLAN_FILE).write_text('{"layers": []}\n')
    work = replace(workplace, checkpoint=pruned)
    recovered(work, FEW.model_copy(update={"method": method}), tmp_path / "out")
    copied = tmp_path / "out" / CHECKPOINT / PLAN_FILE
    assert copied.read_bytes() == (pruned / PLAN_FILE).read_bytes()


def test_a_point_without_held_out_loss_is_null_in_the_file(tmp_path: Path) -> None:
    curve = (CurvePoint(step=1, loss=2.0), CurvePoint(step=2, loss=1.5, held_out=1.75))
    RecoveryResult(method="lora", loss="data", examples=4, curve=curve).write(tmp_path)
    points = read_json(tmp_path / RecoveryResult.FILE)["curve"]
    assert [point["held_out"] for point in points] == [None, 1.75]
