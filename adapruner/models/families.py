"""The model families that can be pruned: one row each.

A row names the modules of a decoder layer and states what the family's checkpoints can hold.
Supporting a further family takes a row here and a small random model in the tests' list; the
per-layer classes in `modeling.py` follow from the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapruner.errors import UserError

PER_LAYER_PREFIX = "adapruner_"
"""Prefix of the model types whose layers differ in head counts; the stock type follows it."""

PER_LAYER_CLASS = "PerLayer"
"""Prefix of the classes of models whose layers differ in width; the stock name follows it."""


@dataclass(frozen=True)
class Family:
    """One family: its Transformers names, its modules and what its config can express.

    Module names are relative to the causal language model (`layers`) or to a decoder layer. Each of
    the seven projections is a linear layer of its own; a family that fuses some is not supported.
    """

    model_type: str
    architecture: str

    heads_divide_hidden: bool = False
    """Whether the stock config demands that the number of query heads divides `hidden_size`."""

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
        return (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "llama",
            "LlamaForCausalLM",
            heads_divide_hidden=True,
            bias_switches={"down": "mlp_bias", "output": "attention_bias"},
        ),
        Family("mistral", "MistralForCausalLM"),
        Family("qwen2", "Qwen2ForCausalLM"),
        Family("qwen3", "Qwen3ForCausalLM"),
        Family("gemma", "GemmaForCausalLM"),
    )
}


def family_of(model_type: str, architectures: list[str] | None) -> Family:
    """The family of a checkpoint, by its config's `model_type` and `architectures`.

    Raises UserError, with the list of supported architectures, for any other.
    """
    family = FAMILIES.get(model_type.removeprefix(PER_LAYER_PREFIX))
    supported = ", ".join(f.architecture for f in FAMILIES.values())
    if family is None:
        name = (architectures or [f"model_type '{model_type}'"])[0]
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
