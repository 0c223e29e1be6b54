"""What the dense model expects, for recovery by distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import TeacherConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def expect_tokens(
    dense: Path,
    pool: Path,
    model: ModelConfig,
    wanted: TeacherConfig | None = None,
) -> Annotated[Path, "expectations"]:
    """The likeliest next tokens after every token of the examples; nothing where none is wanted."""
    from adapruner.recovery import teacher_logits as expectations

    with stage("expect_tokens") as out:
        expectations.expect(dense, pool, model, wanted, out)
    return out
