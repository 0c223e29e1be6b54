"""The result of a recovery.

Who reads it needs no module of Transformers.
"""

from __future__ import annotations

from typing import ClassVar

from adapruner.files import Artifact, Record


class CurvePoint(Record):
    """Losses after one step, in nats per token; `held_out` is None where it was not measured."""

    step: int
    loss: float
    held_out: float | None = None


class RecoveryResult(Artifact):
    """How a checkpoint was recovered.

    `loss` names the training loss, None without training; `examples` is the number of examples,
    `examples_by_domain` that of each domain of the pool, empty where the texts have none;
    `branch_params` are the parameters of an adapter that the result needs, in its folder `adapter`;
    `curve` has one point per step.
    """

    FILE: ClassVar[str] = "recovery.json"

    method: str
    loss: str | None = None
    examples: int = 0
    examples_by_domain: tuple[int, ...] = ()
    branch_params: int = 0
    curve: tuple[CurvePoint, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether the weights differ from those of the pruned checkpoint."""
        return self.loss is not None
