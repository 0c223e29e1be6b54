"""One candidate of a comparison: decided, cut, fine-tuned where asked, measured; then dropped."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from adapruner.pruning.reconstruction import bias, plan, apply as pruning
from adapruner.evaluation import quality as evaluation, tasks
from adapruner.recovery import lora as finetune
from adapruner.search import search
from adapruner.models import checkpoint as ckpt
from adapruner.config import CandidateConfig
from adapruner.errors import UnreachableError
from adapruner.progress import announce
from adapruner.search.results import TRIAL_SECONDS

FILE = "candidate.json"
SECONDS = "stage_seconds.json"


class Shared(NamedTuple):
    """The directories of the stages that all candidates share."""

    dense: Path
    pool: Path
    table: Path
    expected: Path
    texts: Path
    tasks: Path


def measure(shared: Shared, config: CandidateConfig, storage: str, out: Path) -> None:
    """Runs a compression by `config` from its search on and writes what came of it to `out`.

    `candidate.json` holds the metrics of the pruned and of the fine-tuned model (null without
    fine-tuning), counted parameters and the achieved ratios; where the ratio can't be reached or
    the model can't hold the result it holds the `reason` alone. Seconds by stage are beside it.
    """
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        try:
            result = _run(shared, config, storage, Path(folder), seconds)
        except UnreachableError as error:
            announce(f"not reachable: {error}")
            result = {"reason": str(error)}
        else:
            (out / plan.FILE).write_bytes(Path(folder, "search", plan.FILE).read_bytes())
    for name, value in ((FILE, result), (SECONDS, seconds)):
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (out / name).write_text(text, encoding="utf-8")


def _run(
    shared: Shared, config: CandidateConfig, storage: str, root: Path, seconds: dict[str, float]
) -> dict[str, Any]:
    dense, pool, table, expected, *_ = shared
    model, seed = config.model, config.seed
    if config.reconstruction.method == "bias":
        bias.refuse_without_biases(ckpt.inspect(dense))
    with _stage(root, "search", seconds) as decided:
        given = (config.search, config.pruning, config.reconstruction, seed)
        search.search(dense, pool, table, model, *given, storage, decided)
    # A study that went on where it stopped took longer than this process saw.
    trials = json.loads((decided / TRIAL_SECONDS).read_text(encoding="utf-8"))
    seconds["search"] = max(seconds["search"], sum(t.get("total_s", 0.0) for t in trials))
    with _stage(root, "prune", seconds) as cut:
        pruning.prune(dense, decided, pool, model, config.reconstruction, cut)
    result = {"pruned": _measured(cut, shared, config, root / "pruned", seconds), "finetuned": None}
    if config.finetune.method != "none":
        with _stage(root, "finetune", seconds) as tuned:
            finetune.finetune(cut, expected, pool, model, config.finetune, seed, tuned)
        best = tuned / "checkpoint"
        result["finetuned"] = _measured(best, shared, config, root / "finetuned", seconds)
    ratio = plan.read_plan(decided / plan.FILE).ratio
    found = json.loads((decided / "summary.json").read_text(encoding="utf-8"))
    return result | {
        "params": ckpt.inspect(cut).total_params,
        "achieved_all": ratio.achieved_all,
        "achieved_blocks": ratio.achieved_blocks,
        "objective": found["best"]["value"],
    }


def _measured(
    checkpoint: Path, shared: Shared, config: CandidateConfig, out: Path, seconds: dict[str, float]
) -> dict[str, float]:
    with _stage(out, "evaluate", seconds) as into:
        texts, folder = shared.texts, shared.tasks
        given = (config.model.device_config, config.quality, tasks.batch_size(folder))
        evaluation.evaluate(checkpoint, texts, folder, *given, into)
    metrics: dict[str, float] = json.loads((into / "metrics.json").read_text(encoding="utf-8"))
    return metrics


@contextmanager
def _stage(root: Path, name: str, seconds: dict[str, float]) -> Iterator[Path]:
    """A new folder `name` below `root`; the time that the block takes is added to `seconds`."""
    out = root / name
    out.mkdir(parents=True)
    begun = time.perf_counter()
    yield out
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun
