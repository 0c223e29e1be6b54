"""The dense model's next-token distributions on the fine-tuning examples, for distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig, TeacherConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import stage


@cached_step
def compute_teacher_logits(
    dense: WithoutWeights,
    pool: WithoutWeights,
    model: ModelConfig,
    teacher: TeacherConfig | None = None,
) -> Annotated[Path, "teacher_logits"]:
    """`teacher_logits.safetensors` and its summary; only the latter without `teacher`."""
    from adapruner.recovery.training.teacher_logits import compute_teacher_logits as compute

    with stage("compute_teacher_logits") as out:
        if teacher is not None:
            whole(dense)
            whole(pool)
        compute(dense, pool, model, teacher, out)
    return out
