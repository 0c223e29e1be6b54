"""The table of families: a row is all that a family needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.errors import UserError
from adapruner.models import auto_classes, modeling
from adapruner.models.families import FAMILIES, Family, family_of
from adapruner.models.storage.checkpoint import inspect, save_checkpoint
from adapruner.models.structures import describe_model, layer_modules
from tests.adapruner.models.checkpoints import WIDTHS, per_layer_model
from tests.models import BASE, random_model, tokens


@pytest.fixture
def seed_oss(monkeypatch: pytest.MonkeyPatch) -> Family:
    """A family that is in Transformers and not in the table, added to it."""
    family = Family("seed_oss", "SeedOssForCausalLM")
    monkeypatch.setitem(FAMILIES, family.model_type, family)
    auto_classes.register(family)
    return family


def test_a_row_alone_adds_a_family(seed_oss: Family, tmp_path: Path) -> None:
    stock, ids = (
        random_model(BASE | {"model_type": "seed_oss"}, seed_oss.architecture),
        tokens(2, 9),
    )
    dense, out = tmp_path / "dense", tmp_path / "out"
    out.mkdir()
    stock.save_pretrained(dense)
    model = per_layer_model(stock, WIDTHS)
    save_checkpoint(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(reloaded).__name__ == seed_oss.per_layer_architecture
    assert torch.equal(reloaded(ids.long()).logits, model(ids.long()).logits)
    assert inspect(out) == describe_model(model)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_names_of_a_row_are_those_of_its_per_layer_classes(family: Family) -> None:
    config = getattr(modeling, family.per_layer_config)
    model = getattr(modeling, family.per_layer_architecture)
    assert (config.__name__, config.model_type) == (family.per_layer_config, family.per_layer_type)
    assert (model.__name__, model.config_class) == (family.per_layer_architecture, config)
    assert family_of(family.per_layer_type, [family.per_layer_architecture]) == family
    assert family_of(family.model_type, [family.architecture]) == family


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_bias_switches_give_down_and_output_projections_a_bias(family: Family) -> None:
    switches = dict.fromkeys(family.bias_switches.values(), True)
    config = AutoConfig.for_model(family.model_type, **BASE, **switches)
    model = AutoModelForCausalLM.from_config(config)
    config.architectures = [family.architecture]
    for modules in layer_modules(model):
        biased = {name for name in ("down", "output") if modules.projections[name].bias is not None}
        assert biased == set(family.bias_switches)


def test_an_unsupported_architecture_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(UserError) as error:
        family_of("gpt2", ["GPT2LMHeadModel"])
    for name in ("GPT2LMHeadModel", *(family.architecture for family in FAMILIES.values())):
        assert name in str(error.value)


def test_a_multimodal_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    fields = {"vision_config": {"model_type": "siglip_vision_model"}, "text_config": {}}
    config = AutoConfig.for_model("gemma3", **fields)
    config.architectures = ["Gemma3ForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"Gemma3ForConditionalGeneration is multi.*of its own"
    ) as e:
        inspect(tmp_path)
    assert "\n" not in str(e.value)


def test_a_model_of_a_family_without_language_head_is_refused() -> None:
    with pytest.raises(UserError, match="LlamaForSequenceClassification is not a causal"):
        family_of("llama", ["LlamaForSequenceClassification"])
