"""The work of a run in numbers: tokens, bytes, and seconds of passes."""

from __future__ import annotations

from dataclasses import dataclass

from adapruner.config import RunConfig
from adapruner.config.recovery import LORA
from adapruner.estimation.units import Units
from adapruner.models.activations import (
    FLOAT,
    activation_bytes,
    held_bytes,
    logit_bytes,
    runs_by_layer,
)
from adapruner.models.structures import Structures

HEAD_BACKWARD = 2.0
"""Backward pass of head and loss / forward."""


@dataclass(frozen=True)
class Workload:
    """A run of `config` with a model of these structures; a number has `item` bytes."""

    config: RunConfig
    structures: Structures
    vocabulary: int
    units: Units
    item: int

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.structures.layers)

    @property
    def cut_layers(self) -> int:
        """Number of layers that are not protected."""
        pruning = self.config.pruning
        return max(self.depth - pruning.protect_first - pruning.protect_last, 1)

    @property
    def kept(self) -> float:
        """The share of the layers' parameters that stays."""
        pruning, sizes = self.config.pruning, self.structures
        of_blocks = sizes.total_params / sizes.block_params if pruning.ratio_of == "all" else 1.0
        return max(1 - pruning.ratio * of_blocks, 0.0)

    @property
    def weights(self) -> int:
        """Bytes of the dense model in memory."""
        return self.item * self.structures.total_params

    @property
    def both_models(self) -> int:
        """Bytes of the dense and the pruned model in memory."""
        return int(self.weights * (1 + self.kept))

    @property
    def update_tokens(self) -> int:
        """Tokens that cut layers are updated on."""
        return self.config.calibration.update_size * self.config.calibration.sequence_length

    @property
    def domains(self) -> int:
        """Number of domains of the calibration text: its sources, or the clusters of one."""
        source = self.config.calibration.source
        count = 1 if isinstance(source, str) else len(source)
        return count if count > 1 else self.config.calibration.clusters

    @property
    def is_recovery_measured(self) -> bool:
        """Whether the memory of fine-tuning is measured: not where several processes train."""
        finetune, evaluation = self.config.finetune, self.config.evaluation
        is_dealt_out = self.config.model.processes > 1 and finetune.method == LORA
        is_measured = evaluation.speed and evaluation.peak_memory
        return finetune.is_enabled and is_measured and not is_dealt_out

    def forward(self, tokens: int, kept: float = 1.0, backward: float = 0.0) -> float:
        """Seconds of a pass with logits and loss, and `backward` times a backward pass."""
        layers = self.depth * kept * (self.units.layer + backward * self.units.backward)
        return tokens * (layers + self.units.head * (1 + (HEAD_BACKWARD if backward else 0)))

    def layers(self, tokens: int) -> float:
        """Seconds of a pass through the layers alone."""
        return tokens * self.depth * self.units.layer

    def activations(self, tokens: int, depth: int, kept: float = 1.0) -> int:
        """Bytes that a forward pass over `tokens` keeps for the backward pass, with the logits."""
        kept_numbers = activation_bytes(self.structures, tokens, self.item, depth, kept)
        return kept_numbers + logit_bytes(self.vocabulary, tokens)

    def held(self, tokens: int) -> int:
        """Bytes that a forward and backward pass over `tokens` holds, with the logits."""
        held = held_bytes(self.structures, tokens, self.item)
        return held + logit_bytes(self.vocabulary, tokens)

    def recomputed(self, tokens: int, batch: int) -> float:
        """Seconds of what layers compute again for `tokens`, in batches of `batch` tokens."""
        return self.layers(tokens) * runs_by_layer(self.structures, batch, self.item)

    def gram_matrix(self) -> int:
        """Bytes of the square matrices of one layer."""
        widths = self.structures.layers[0]
        return FLOAT * widths.mlps * widths.mlp_width**2

    @property
    def update(self) -> float:
        """Seconds of the update of all cut layers by stored matrices."""
        return self.cut_layers * (self.units.solve + self.mixing)

    @property
    def mixing(self) -> float:
        """Seconds to mix the stored matrices of one layer."""
        return self.domains * self.units.mix

    def states(self, tokens: int) -> int:
        """Bytes of one hidden state per token."""
        return tokens * self.structures.hidden_size * self.item
