"""No reconstruction: the kept weights stay as they are."""

from __future__ import annotations

from typing import Any

from adapruner.models.structures import Structures
from adapruner.pruning.reconstruction.request import Correction, ReconstructionRequest


def check_supported(structures: Structures) -> None:
    """Every model is supported."""


def reconstruct(request: ReconstructionRequest) -> Correction:
    """A correction that changes nothing."""

    def correct(model: Any) -> None:
        pass

    return correct
