"""Registers the per-layer classes of all families with Transformers' auto classes, when imported.

`AutoModelForCausalLM` then loads checkpoints whose layers differ in width, of a stock type and of a
type `adapruner_*`, without running code from the checkpoint.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models import families, modeling
from adapruner.models.families import FAMILIES, Family


class _ByConfig:
    """Stands for the stock class of a config, and for the per-layer class where layers differ."""

    stock: Any
    per_layer: Any

    @classmethod
    def _class_of(cls, config: Any) -> Any:
        return cls.per_layer if config.is_heterogeneous else cls.stock

    @classmethod
    def from_pretrained(cls, *args: Any, config: Any, **kwargs: Any) -> Any:
        return cls._class_of(config).from_pretrained(*args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return cls._class_of(config)._from_config(config, **kwargs)


def register(family: Family) -> None:
    """Registers the per-layer config and model of one family. Idempotent."""
    config = getattr(modeling, family.per_layer_config)
    model = getattr(modeling, family.per_layer_architecture)
    AutoConfig.register(family.per_layer_type, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model, exist_ok=True)
    stock = getattr(transformers, family.architecture)
    chosen = type(family.architecture, (_ByConfig,), {"stock": stock, "per_layer": model})
    AutoModelForCausalLM.register(stock.config_class, chosen, exist_ok=True)


def add(family: Family) -> None:
    """`families.add`, and registers the family's classes."""
    families.add(family)
    register(FAMILIES[family.model_type])


for _family in FAMILIES.values():
    register(_family)
