"""How gates are trained, for `search.planner: gates`."""

from __future__ import annotations

from pydantic import Field

from adapruner.config.base import Section


class GatesConfig(Section):
    """The training of gates on residual dimensions and MLP channels, the model itself frozen."""

    steps: int = Field(250, ge=1, description="steps of the hypernetwork that computes the gates")
    batch_size: int = Field(2, ge=1, description="windows of the pool's update text per step")
    learning_rate: float = Field(1e-2, gt=0, description="AdamW's, without a schedule")
    penalty: float = Field(
        6.0,
        ge=0,
        description="weight of |log(parameters / requested)| beside the cross-entropy in nats",
    )
    temperature: float = Field(
        0.4, gt=0, description="of the Gumbel noise; low: nearly binary gates"
    )
