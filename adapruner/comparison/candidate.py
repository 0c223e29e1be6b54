"""One candidate of a comparison: planned, cut, fine-tuned if requested, and measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from adapruner.comparison.cells import CandidateConfig
from adapruner.data.pool import TestTexts
from adapruner.errors import UnreachableError
from adapruner.evaluation.quality import evaluate
from adapruner.evaluation.results import Evaluation
from adapruner.files import Artifact, read_json, write_json
from adapruner.models.storage import checkpoint as ckpt
from adapruner.progress import announce
from adapruner.pruning.apply import prune
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction import method_module
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest, finetune
from adapruner.search.inputs import SearchInputs
from adapruner.search.planner import search
from adapruner.search.results import TRIAL_SECONDS, NamedValues, SearchResult

STAGE_SECONDS = "stage_seconds.json"


class CandidateResult(Artifact):
    """Metrics of the pruned and the fine-tuned model; the `reason` alone where it is unreachable.

    `achieved` is the removed share of what `pruning.ratio` is a share of, `achieved_all` and
    `achieved_blocks` are those of parameters; `zeros` are weights that are zero and not removed;
    `objective` are the selected trial's values by objective.
    """

    FILE: ClassVar[str] = "candidate.json"

    reason: str | None = None
    pruned: dict[str, float] | None = None
    finetuned: dict[str, float] | None = None
    params: int | None = None
    achieved: float | None = None
    achieved_all: float | None = None
    achieved_blocks: float | None = None
    zeros: int = 0
    objective: NamedValues | None = None


@dataclass(frozen=True)
class SharedStages:
    """The directories of the stages that all candidates share, first those that a search reads."""

    inputs: SearchInputs
    teacher_logits: Path
    test_texts: Path
    tasks: Path


def measure_candidate(
    shared: SharedStages, config: CandidateConfig, storage: str, out: Path
) -> None:
    """Runs a compression from its search on; writes its result, plan and seconds by stage to `out`.

    The weights are dropped: a comparison of many candidates would fill any disk. A ratio that can't
    be reached, or a method that the model does not support, is a result as well.
    """
    with tempfile.TemporaryDirectory(dir=out) as folder:
        run = _Run(shared, config, Path(folder))
        try:
            result = run.execute(storage)
        except UnreachableError as error:
            announce(f"not reachable: {error}")
            result = CandidateResult(reason=str(error))
        else:
            PruningPlan.read(run.root / "search").write(out)
    result.write(out)
    write_json(out / STAGE_SECONDS, run.seconds)


@dataclass(frozen=True)
class _Run:
    """The stages of one candidate, in folders below `root`."""

    shared: SharedStages
    config: CandidateConfig
    root: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def execute(self, storage: str) -> CandidateResult:
        config, inputs = self.config, self.shared.inputs
        structures = ckpt.inspect(inputs.checkpoint)
        method_module(config.reconstruction.method).check_supported(structures)
        plan = self._search(storage)
        with self._stage("prune") as cut:
            settings, grams = config.reconstruction, inputs.gram_matrices
            prune(inputs.checkpoint, plan, inputs.pool, config.model, settings, cut, grams)
        pruned = self._evaluate("pruned", cut)
        finetuned = None
        if config.finetune.is_enabled:
            finetuned = self._evaluate("finetuned", self._finetune(cut))
        decided = PruningPlan.read(plan)
        return CandidateResult(
            pruned=pruned,
            finetuned=finetuned,
            params=ckpt.inspect(cut).total_params,
            achieved=decided.ratio.achieved,
            achieved_all=decided.ratio.achieved_all,
            achieved_blocks=decided.ratio.achieved_blocks,
            zeros=decided.sparsity.zeros if decided.sparsity else 0,
            objective=SearchResult.read(plan).best.values,
        )

    def _search(self, storage: str) -> Path:
        shared = self.shared
        with self._stage("search") as out:
            search(shared.inputs, self.config, storage, out)
        # A study that was resumed took longer than this process ran.
        trials = sum(trial.get("total_s", 0.0) for trial in read_json(out / TRIAL_SECONDS))
        self.seconds["search"] = max(self.seconds["search"], trials)
        return out

    def _finetune(self, cut: Path) -> Path:
        shared, config = self.shared, self.config
        with self._stage("finetune") as out:
            request = RecoveryRequest(
                checkpoint=cut,
                dense=shared.inputs.checkpoint,
                teacher=shared.teacher_logits,
                pool=shared.inputs.pool,
                model=config.model,
                finetune=config.finetune,
                seed=config.seed,
                processes=config.model.processes,
            )
            finetune(request, out)
        return out / CHECKPOINT

    def _evaluate(self, name: str, checkpoint: Path) -> dict[str, float]:
        shared, config = self.shared, self.config
        texts = TestTexts.read(shared.test_texts).texts
        with self._stage("evaluate", name) as out:
            device = config.model.device_config
            evaluate(checkpoint, texts, shared.tasks, device, config.quality, out)
        return Evaluation.read(out).metrics

    @contextmanager
    def _stage(self, name: str, below: str = "") -> Iterator[Path]:
        """A new folder for a stage; the time that the block takes is added to its seconds."""
        out = self.root / below / name
        out.mkdir(parents=True)
        start = time.perf_counter()
        try:
            yield out
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
