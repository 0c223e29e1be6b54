"""The model families that can be pruned: one row each.

A row names the modules of a decoder layer and states what the family's checkpoints can hold.
Supporting a further family takes a row here and a small random model in the tests' list; the
per-layer classes in `modeling.py` follow from the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapruner.errors import UserError

PER_LAYER_PREFIX = "adapruner_"
"""Prefix of the model types whose layers differ in head counts; the stock type follows it."""

PER_LAYER_CLASS = "PerLayer"
"""Prefix of the classes of models whose layers differ in width; the stock name follows it."""


PRE_NORMS = frozenset({"input_layernorm", "post_attention_layernorm"})
"""The modules with weights of a pre-norm layer, beside its blocks: a norm before each block."""


@dataclass(frozen=True)
class Family:
    """One family: its Transformers names, its modules and what its config can express.

    Module names are relative to the causal language model (`layers`) or to a decoder layer.
    Projections that name the same linear layer are fused: consecutive rows of it, in the order
    query, key, value or gate, up. A layer that has the module `experts`, from which `router`
    chooses, has no projections of an MLP beside them.
    """

    model_type: str
    architecture: str

    heads_divide_hidden: bool = False
    """Whether the stock config demands that the number of query heads divides `hidden_size`."""

    long_rope_fixes_heads: bool = False
    """Whether the stock config derives the length of its rotary factors from the head count."""

    couples_heads: bool = False
    """Whether one norm spans the queries of all heads, so that no head can be removed exactly."""

    bias_switches: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Projection (`down`, `output`) -> the config's field that gives its block biases.

    Empty for a family whose config has no such field for the MLP.
    """

    layers: str = "model.layers"
    mlp: str = "mlp"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    attention: str = "self_attn"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    experts: str = ""
    router: str = ""

    @property
    def per_layer_type(self) -> str:
        """The `model_type` of checkpoints whose layers differ in more than the MLP's width."""
        return PER_LAYER_PREFIX + self.model_type

    @property
    def per_layer_architecture(self) -> str:
        """The model class of such checkpoints, in `modeling.py`."""
        return PER_LAYER_CLASS + self.architecture

    @property
    def per_layer_decoder(self) -> str:
        """The decoder class of such checkpoints, in `modeling.py`."""
        return self.per_layer_architecture.replace("ForCausalLM", "Model")

    @property
    def per_layer_config(self) -> str:
        """The config class of the type `per_layer_type`, in `modeling.py`."""
        return self.per_layer_architecture.replace("ForCausalLM", "Config")

    @property
    def projections(self) -> tuple[str, ...]:
        """The linear layers of one decoder layer, the targets of pruning and of LoRA."""
        names = (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)
        return tuple(dict.fromkeys(names))

    def stock_head_counts(self, config: Any) -> tuple[int, ...]:
        """The numbers of query heads, up to the widest layer's, that a stock config accepts."""
        most = max(layer.num_attention_heads for layer in config.per_layer_config)
        hidden = config.hidden_size
        if self.long_rope_fixes_heads and config.rope_parameters.get("short_factor"):
            return (hidden // getattr(config, "head_dim", hidden // most),)
        counts = range(1, most + 1)
        return tuple(n for n in counts if not self.heads_divide_hidden or hidden % n == 0)


_LLAMA_BIASES = {"down": "mlp_bias", "output": "attention_bias"}

_FUSED_MLP: Any = {"gate": "mlp.gate_up_proj", "up": "mlp.gate_up_proj"}

FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "llama",
            "LlamaForCausalLM",
            heads_divide_hidden=True,
            bias_switches=_LLAMA_BIASES,
        ),
        Family("mistral", "MistralForCausalLM"),
        Family("qwen2", "Qwen2ForCausalLM"),
        Family("qwen3", "Qwen3ForCausalLM"),
        Family("qwen3_moe", "Qwen3MoeForCausalLM", experts="mlp.experts", router="mlp.gate"),
        Family("gemma", "GemmaForCausalLM"),
        Family("gemma2", "Gemma2ForCausalLM", heads_divide_hidden=True),
        Family("gemma3_text", "Gemma3ForCausalLM", heads_divide_hidden=True),
        Family("olmo2", "Olmo2ForCausalLM", couples_heads=True),
        Family("olmo3", "Olmo3ForCausalLM", couples_heads=True),
        Family("granite", "GraniteForCausalLM", bias_switches=_LLAMA_BIASES),
        Family("smollm3", "SmolLM3ForCausalLM", bias_switches=_LLAMA_BIASES),
        Family(
            "phi3",
            "Phi3ForCausalLM",
            long_rope_fixes_heads=True,
            query="self_attn.qkv_proj",
            key="self_attn.qkv_proj",
            value="self_attn.qkv_proj",
            **_FUSED_MLP,
        ),
        Family("glm", "GlmForCausalLM", **_FUSED_MLP),
        Family("glm4", "Glm4ForCausalLM", **_FUSED_MLP),
    )
}


SHIPPED = frozenset(FAMILIES)
"""The stock types of the table as it is shipped; `model.family: auto` adds others."""


def add(family: Family) -> None:
    """Adds a family that was found to the table, unless its type is in the table as shipped."""
    if family.model_type not in SHIPPED:
        FAMILIES[family.model_type] = family


def is_tried(model_type: str) -> bool:
    """Whether `model.family: auto` finds and proves the row of a checkpoint of this type.

    A per-layer checkpoint has the row that it was made with beside it.
    """
    return model_type not in SHIPPED and not model_type.startswith(PER_LAYER_PREFIX)


def family_of(model_type: str, architectures: list[str] | None) -> Family:
    """The family of a checkpoint, by its config's `model_type` and `architectures`.

    Raises UserError, with the list of supported architectures, for any other.
    """
    family = FAMILIES.get(model_type.removeprefix(PER_LAYER_PREFIX))
    supported = ", ".join(f.architecture for f in FAMILIES.values())
    if family is None:
        name = (architectures or [f"model_type '{model_type}'"])[0]
        if name.endswith("ForConditionalGeneration"):
            raise UserError(
                f"{name} is multimodal or has an encoder; save its language model as a checkpoint "
                f"of its own; supported are {supported}"
            )
        raise UserError(f"architecture {name} is not supported; supported are {supported}")
    if architectures and architectures[0] not in (
        family.architecture,
        family.per_layer_architecture,
    ):
        raise UserError(
            f"{architectures[0]} is not a causal language model that can be pruned; "
            f"supported are {supported}"
        )
    return family
