"""No reconstruction: the kept weights stay as they are."""

from __future__ import annotations

from adapruner.models.structures import LayerModules, Structures
from adapruner.pruning.reconstruction.request import Reconstruction, ReconstructionRequest


def check_supported(structures: Structures) -> None:
    """Every model is supported."""


def reconstruct(request: ReconstructionRequest) -> Reconstruction:
    """Corrections that change nothing."""
    return Reconstruction([_keep for _ in request.plan.layers])


def _keep(_: LayerModules) -> None:
    pass
