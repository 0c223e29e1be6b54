"""Registers the per-layer classes with Transformers' auto classes."""

from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models import modeling
from adapruner.models.families import FAMILIES


def register() -> None:
    """Lets AutoConfig and AutoModelForCausalLM load `adapruner_*` model types. Idempotent."""
    for family in FAMILIES.values():
        config = getattr(modeling, family.per_layer_config)
        model = getattr(modeling, family.per_layer_architecture)
        AutoConfig.register(family.per_layer_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)
