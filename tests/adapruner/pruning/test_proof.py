"""`model.family: auto`: a decoder that is not in the table is proved, or refused with the check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.files import read_json
from adapruner.models import auto_classes, families
from adapruner.models.discovery import find_family
from adapruner.models.families import FAMILIES, Family
from adapruner.models.storage import sources
from adapruner.models.storage.checkpoint import FAMILY_FILE, inspect, load_model, save_checkpoint
from adapruner.pruning.proof import prove
from adapruner.pruning.surgery import apply
from tests.adapruner.pruning.plans import masked, plan_for
from tests.models import BASE, KINDS, random_model, small_model, tokens

OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "seed_oss": ({"model_type": "seed_oss"}, "SeedOssForCausalLM"),
    "ministral": ({"model_type": "ministral", "sliding_window": 6}, "MinistralForCausalLM"),
    "exaone4": ({"model_type": "exaone4"}, "Exaone4ForCausalLM"),
    "hunyuan": ({"model_type": "hunyuan_v1_dense"}, "HunYuanDenseV1ForCausalLM"),
}
"""Decoders of Transformers that are not in the table."""


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """The table is as it was before the test."""
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


def written(fields: dict[str, Any], architecture: str, out: Path) -> Path:
    random_model(BASE | fields, architecture).save_pretrained(out)
    return out


def materialized(checkpoint: Path, out: Path) -> Path:
    out.mkdir()
    source = sources.resolve(ModelConfig(source=str(checkpoint), family="auto"))
    sources.materialize(source, out)
    return out


@pytest.mark.parametrize("other", OTHERS)
def test_a_decoder_outside_the_table_is_proved_and_pruned(other: str, tmp_path: Path) -> None:
    checkpoint = written(*OTHERS[other], tmp_path / "source")
    dense = materialized(checkpoint, tmp_path / "dense")
    prove(dense)
    device, ids, out = ModelConfig(source="x", device="cpu"), tokens(2, 12).long(), tmp_path / "out"
    model = load_model(dense, device)
    plan = plan_for(model, "ragged")
    with masked(model, plan):
        expected = model(ids).logits
    apply(model, plan)
    out.mkdir()
    save_checkpoint(model, dense, out)
    FAMILIES.pop(model.config.model_type.removeprefix("adapruner_"))  # as in a new process
    assert inspect(out).total_params == plan.params.pruned
    assert (out / FAMILY_FILE).is_file()
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(reloaded(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "phi3-long" and "moe" not in k])
def test_the_rows_of_the_table_are_found(kind: str) -> None:
    config = small_model(kind).config
    row = FAMILIES[config.model_type]
    found = find_family(config)
    assert found == replace(row, long_rope_fixes_heads=False, bias_switches={})


@pytest.mark.parametrize(
    ("fields", "architecture", "why"),
    [
        ({"model_type": "gpt2", "n_head": 4}, "GPT2LMHeadModel", "model"),
        ({"model_type": "mixtral"}, "MixtralForCausalLM", "no linear layer for|no expected"),
        ({"model_type": "starcoder2"}, "Starcoder2ForCausalLM", "'mlp.c_fc'"),
    ],
)
def test_a_decoder_with_other_parts_is_refused_in_one_line(
    fields: dict[str, Any], architecture: str, why: str, tmp_path: Path
) -> None:
    checkpoint = written(fields, architecture, tmp_path / "source")
    with pytest.raises(UserError, match=why) as error:
        materialized(checkpoint, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_wrong_row_fails_the_proof_with_the_name_of_a_check(tmp_path: Path) -> None:
    checkpoint = written(*OTHERS["seed_oss"], tmp_path / "source")
    swapped = {"query": "self_attn.k_proj", "key": "self_attn.q_proj"}
    auto_classes.add(Family("seed_oss", "SeedOssForCausalLM", **swapped))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"the check 'per_layer, .*' failed") as error:
        prove(checkpoint)
    assert "\n" not in str(error.value)


def test_heads_that_can_not_be_removed_fail_the_proof(tmp_path: Path) -> None:
    """Helium's output projection has as many columns as the hidden size, whatever the heads."""
    source = written({"model_type": "helium"}, "HeliumForCausalLM", tmp_path / "source")
    dense = materialized(source, tmp_path / "dense")
    with pytest.raises(UserError, match=r"helium: the check '.*' failed"):
        prove(dense)


def test_heads_that_one_norm_spans_are_not_removed() -> None:
    assert find_family(small_model("olmo2-mha").config).couples_heads


def test_a_family_of_the_table_is_not_tried(tmp_path: Path) -> None:
    small_model("llama").save_pretrained(tmp_path / "source")
    dense = materialized(tmp_path / "source", tmp_path / "dense")
    assert not (dense / FAMILY_FILE).exists()


def test_without_the_setting_it_is_refused(tmp_path: Path) -> None:
    checkpoint = written(*OTHERS["seed_oss"], tmp_path / "source")
    with pytest.raises(UserError, match="SeedOssForCausalLM is not supported"):
        sources.resolve(ModelConfig(source=str(checkpoint)))


def test_the_row_travels_with_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = written(*OTHERS["seed_oss"], tmp_path / "source")
    dense = materialized(checkpoint, tmp_path / "dense")
    assert read_json(dense / FAMILY_FILE)["architecture"] == "SeedOssForCausalLM"
    assert families.is_tried("seed_oss") and not families.is_tried("llama")
