"""Recovery of a pruned checkpoint by the configured method."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from pydantic import TypeAdapter

from adapruner.config import DeviceConfig, FinetuneConfig
from adapruner.config.recovery import LORA
from adapruner.models.storage.checkpoint import PLAN_FILE, update_shares
from adapruner.recovery import METHODS
from adapruner.recovery.results import RecoveryResult

CHECKPOINT = "checkpoint"
"""The folder of the recovered checkpoint."""


@dataclass(frozen=True)
class RecoveryRequest:
    """The inputs of a recovery.

    `checkpoint` is the pruned checkpoint, `dense` the one before, where the method starts from it,
    `teacher` the directory of the teacher logits, `pool` that of the pool. `processes` is the
    number of those that `lora` trains with; other methods have one.
    """

    checkpoint: Path
    dense: Path
    teacher: Path
    pool: Path
    model: DeviceConfig
    finetune: FinetuneConfig
    seed: int
    processes: int = 1

    @property
    def is_dealt_out(self) -> bool:
        """Whether several processes train the model together, unless it has experts."""
        return self.processes > 1 and self.finetune.method == LORA

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each domain in the examples; empty: those of the calibration pool."""
        teacher = self.finetune.teacher
        if teacher is not None:
            # The teacher logits belong to these examples; they are computed without a plan.
            return teacher.shares
        return self.finetune.shares or update_shares(self.checkpoint)


_REQUEST = TypeAdapter(RecoveryRequest)


def to_json(request: RecoveryRequest) -> str:
    """A request for another process, with absolute paths."""
    request = replace(
        request,
        checkpoint=request.checkpoint.absolute(),
        dense=request.dense.absolute(),
        teacher=request.teacher.absolute(),
        pool=request.pool.absolute(),
    )
    return _REQUEST.dump_json(request, warnings=False).decode()


def from_json(text: str) -> RecoveryRequest:
    """The request that `to_json` wrote."""
    return _REQUEST.validate_json(text)


def finetune(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Runs `request.finetune.method`; writes the folder `checkpoint` and `recovery.json` to `out`.

    The pruning plan is copied along. Raises UserError where the fine-tune split or the settings
    don't allow training.
    """
    target = out / CHECKPOINT
    target.mkdir()
    module = import_module(METHODS[request.finetune.method])
    result: RecoveryResult = module.recover(request, target)
    plan = request.checkpoint / PLAN_FILE
    if plan.is_file():
        shutil.copyfile(plan, target / PLAN_FILE)
    result.write(out)
    return result
