"""Registers the per-layer classes of all families with Transformers' auto classes, when imported.

`AutoConfig` and `AutoModelForCausalLM` then load checkpoints of a type `adapruner_*` without
running code from the checkpoint.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models import modeling
from adapruner.models.families import FAMILIES, Family


def register(family: Family) -> None:
    """Registers the per-layer config and model of one family. Idempotent."""
    config = getattr(modeling, family.per_layer_config)
    model = getattr(modeling, family.per_layer_architecture)
    AutoConfig.register(family.per_layer_type, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model, exist_ok=True)


def add(family: Family) -> None:
    """Adds a family that was found to the table, unless its type has a row."""
    if family.model_type not in FAMILIES:
        FAMILIES[family.model_type] = family
        register(family)


for _family in FAMILIES.values():
    register(_family)
