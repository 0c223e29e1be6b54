"""Recovery method `none`: the pruned checkpoint as it is."""

from __future__ import annotations

from pathlib import Path

from adapruner.models.storage.checkpoint import copy_checkpoint
from adapruner.recovery.finetune import RecoveryRequest
from adapruner.recovery.results import RecoveryResult


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Copies the checkpoint to `out`."""
    copy_checkpoint(request.checkpoint, out)
    return RecoveryResult(method="none")
