"""The importance pass: the score of every structure for every calibration sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def estimate_importance(
    checkpoint: Path,
    pool: Path,
    model: ModelConfig,
    reference_size: int,
    seed: int,
    groups: tuple[str, ...],
) -> Annotated[Path, "importance_table"]:
    """The importance table; `seed` draws its reference subset of `reference_size` samples.

    `groups` are the statistics of weight gradients that it has.
    """
    from adapruner.data.pool import Pool
    from adapruner.importance.processes import ImportanceRequest, write_table
    from adapruner.importance.statistics import importance_table, reference_subset
    from adapruner.models.streamed.choice import load_or_stream

    samples = Pool.read(pool)
    tokens, domain = samples.calibration, samples.calibration_domain
    reference = reference_subset(len(tokens), reference_size, seed)
    with stage("estimate_importance") as out:
        if model.processes > 1:
            request = ImportanceRequest(
                checkpoint=checkpoint.absolute(), device=model.device_config,
                reference=tuple(reference), domain=domain, groups=groups,
            )  # fmt: skip
            write_table(request, tokens, model.processes, out)
        else:
            dense = load_or_stream(checkpoint, model, "2 reads")
            importance_table(dense, tokens, reference, domain, groups=groups, out=out)
    return out
