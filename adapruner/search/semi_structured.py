"""The plan of 2:4 sparsity: every structure is kept, 2 of 4 weights of a projection are zero."""

from __future__ import annotations

import time
from pathlib import Path

from adapruner.config import PlanConfig
from adapruner.data.pool import Pool
from adapruner.evaluation.perplexity import perplexity
from adapruner.hashing import hash_json
from adapruner.models.semi_structured import PATTERN, check_widths
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import Structures
from adapruner.pruning.plan import Sparsity, make_plan
from adapruner.pruning.semi_structured import make_sparse, norms_for
from adapruner.pruning.target import PruningTarget
from adapruner.search.inputs import SearchInputs
from adapruner.search.results import write_single_plan


def search(inputs: SearchInputs, config: PlanConfig, storage: str, out: Path) -> None:
    """Writes what a search writes, with one trial: the dense model with zeros.

    Raises UnreachableError for a model whose widths are no multiples of 4.
    """
    structures = ckpt.inspect(inputs.checkpoint)
    check_widths(structures)
    metric, pool = config.search.metric, Pool.read(inputs.pool)
    model = ckpt.load_model(inputs.checkpoint, config.model)
    start = time.perf_counter()
    norms = norms_for(metric, model, pool.calibration)
    dense = perplexity(model, pool.objective)
    zeros = make_sparse(model, norms)
    sparse = perplexity(model, pool.objective)
    seconds = {"total_s": time.perf_counter() - start}
    provenance = {
        "method": f"{PATTERN} by {metric}",
        "seed": config.seed,
        "objective_sha256": hash_json(pool.objective.tolist()),
    }
    target = PruningTarget(structures, config.pruning)
    plan = make_plan(target, _everything(structures), provenance).model_copy(
        update={"sparsity": Sparsity(pattern=PATTERN, score=metric, zeros=zeros)}
    )
    write_single_plan(out, plan, metric, (dense, sparse), pool.objective.numel(), seconds)


def _everything(structures: Structures) -> list[tuple[range, range]]:
    return [(range(layer.mlp_channels), range(layer.query_heads)) for layer in structures.layers]
