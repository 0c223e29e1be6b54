"""The model families that can be pruned: one row each.

A row names where the coupled structures of a decoder layer are. Supporting a further family means
a row here, its per-layer class in `modeling.py`, and a small random model in the tests' list.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapruner.errors import UserError

PER_LAYER_PREFIX = "adapruner_"
"""Model types of checkpoints whose layers differ in width: this, and the family's own type."""


@dataclass(frozen=True)
class Family:
    """Names of the parts of one family, relative to the causal language model or to a layer."""

    model_type: str
    architecture: str
    divides_hidden: bool = (
        False  # its config refuses a head count that hidden_size is no multiple of
    )
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
        return PER_LAYER_PREFIX + self.model_type

    @property
    def per_layer_architecture(self) -> str:
        return "PerLayer" + self.architecture

    @property
    def per_layer_config(self) -> str:
        return self.per_layer_architecture.replace("ForCausalLM", "Config")

    @property
    def projections(self) -> tuple[str, ...]:
        """The linear layers of one decoder layer, the targets of pruning and of LoRA."""
        return (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)


FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", "LlamaForCausalLM", divides_hidden=True),
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
        named = (architectures or [f"model_type '{model_type}'"])[0]
        raise UserError(f"architecture {named} is not supported; supported are {supported}")
    fitting = (family.architecture, family.per_layer_architecture)
    if architectures and architectures[0] not in fitting:
        raise UserError(
            f"{architectures[0]} is not a causal language model that can be pruned; "
            f"supported are {supported}"
        )
    return family
