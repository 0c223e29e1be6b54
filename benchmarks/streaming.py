"""Stages on a model that does not fit in memory, against the whole model.

    python benchmarks/streaming.py [MILLIONS]

A random Llama of about MILLIONS (300) of weights, in bfloat16 where the processor has it, goes
through the stages, whole and streamed, each in a process of its own. A streamed stage may take 60 %
of the weights' bytes more than the libraries have taken (RLIMIT_DATA); it fails if it needs more.
Printed: the largest resident size beyond the libraries', seconds, and whether both results are the
same bytes.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapruner.config import ModelConfig, PruningConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.evaluation.behaviour import agreement
from adapruner.evaluation.divergence import top_log_probs
from adapruner.evaluation.perplexity import mean_loss
from adapruner.hashing import hash_directory
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from adapruner.models.storage.checkpoint import compute_dtype, inspect, size_on_disk
from adapruner.models.storage.weights import stored_tensors, weight_files
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.memory import process_bytes
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.apply import prune
from adapruner.pruning.sensitivity import measure_sensitivity
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.updates.gram_matrices import GramMatrices, compute_gram_matrices

SHARE = 0.6
DEPTH, VOCABULARY, LENGTH = 24, 2048, 64
SAMPLES, UPDATE, OBJECTIVE = 5, 12, 4
MIB = 2**20
DTYPE: Any = compute_dtype(ModelConfig(source="", device="cpu", dtype="auto"))

Stage = Callable[[Path, ModelConfig, Path], None]


def main(millions: int) -> int:
    torch.set_num_threads(1)
    failed = 0
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make_inputs(root / "small", 1)
        everything(root / "small")  # imports what the libraries import when it is first used
        apart(partial(make_inputs, root, millions))
        size = size_on_disk(root / "dense")
        print(f"{size / MIB:.0f} MiB of weights in {DTYPE}; streamed: {SHARE:.0%} of that at most")
        print("| stage | whole: MiB | s | streamed: MiB | s | same result |\n|" + " --- |" * 6)
        for name, stage in STAGES.items():
            whole, streamed = (root / mode / name for mode in ("whole", "streamed"))
            peak, seconds = apart(partial(run, stage, root, whole, None))
            cap = int(SHARE * size)
            try:
                capped, slower = apart(partial(run, stage, root, streamed, cap))
            except (MemoryError, RuntimeError, OSError) as error:
                print(f"| {name} | {peak / MIB:.0f} | {seconds:.1f} | {error} | | NO |", flush=True)
                failed += 1
                continue
            same = contents(whole) == contents(streamed)
            failed += not same or capped > cap
            print(
                f"| {name} | {peak / MIB:.0f} | {seconds:.1f} | {capped / MIB:.0f} | {slower:.1f} "
                f"| {'yes' if same else 'NO'} |",
                flush=True,
            )
    return int(failed > 0)


def make_inputs(root: Path, millions: int) -> None:
    """A checkpoint, and a pool of random tokens."""
    hidden = max(round((millions * 1e6 / DEPTH / 12.25) ** 0.5 / 64), 1) * 64
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=round(hidden * 2.75),
        num_hidden_layers=DEPTH,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(getattr(torch, DTYPE)).save_pretrained(
        root / "dense", max_shard_size="50MB"
    )
    ids = torch.randint(3, VOCABULARY, (UPDATE + 2 * OBJECTIVE, LENGTH), dtype=torch.int32)
    update, objective, held_out = ids.split([UPDATE, OBJECTIVE, OBJECTIVE])
    domain = torch.zeros(UPDATE, dtype=torch.int32)
    pool = Pool(
        update[:SAMPLES].clone(), update.clone(), domain, objective.clone(), held_out.clone()
    )
    (root / "pool").mkdir(parents=True)
    pool.write(root / "pool")


def everything(root: Path) -> None:
    """All stages on a model."""
    for mode, streaming in (("whole", False), ("streamed", True)):
        for name, stage in STAGES.items():
            out = root / mode / name
            out.mkdir(parents=True)
            stage(root, settings_of(streaming), out)


def settings_of(streaming: Any) -> ModelConfig:
    return ModelConfig(source="", device="cpu", dtype=DTYPE, streaming=streaming)


def run(stage: Stage, root: Path, out: Path, cap: int | None) -> tuple[int, float]:
    """The peak of a stage's memory beyond that of the libraries, in bytes, and its seconds."""
    out.mkdir(parents=True)
    settings = settings_of("auto" if cap else False)
    before = process_bytes("VmRSS")
    if cap is not None:
        limit = process_bytes("VmData") + cap
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()
    stage(root, settings, out)
    seconds = time.perf_counter() - start
    return process_bytes("VmHWM") - before, seconds


def importance(root: Path, settings: ModelConfig, out: Path) -> None:
    model, pool = load_or_stream(root / "dense", settings, "2 reads"), Pool.read(root / "pool")
    importance_table(model, pool.calibration, [0, 1, 2, 3], out=out)


def gram_matrices(root: Path, settings: ModelConfig, out: Path) -> None:
    model, pool = load_or_stream(root / "dense", settings, "1 read"), Pool.read(root / "pool")
    compute_gram_matrices(model, pool.update, pool.domain, out)


def sensitivity(root: Path, settings: ModelConfig, out: Path) -> None:
    model, pool = load_or_stream(root / "dense", settings, "2 reads"), Pool.read(root / "pool")
    rows = measure_sensitivity(
        model, scores_of(root).mlp, pool.objective, None, {}, lambda *_: None
    )
    (out / "rows.txt").write_text(str(rows.tolist()))


def trial(root: Path, settings: ModelConfig, out: Path) -> None:
    """A plan, and the objective of the cut and updated model."""
    target = PruningTarget(inspect(root / "dense"), PruningConfig(ratio_of="blocks"))
    plan = allocate(scores_of(root), target, {})
    plan.write(out)
    model, pool = load_or_stream(root / "dense", settings, "2 reads"), Pool.read(root / "pool")
    grams = GramMatrices(root / "whole" / "gram_matrices")
    with narrowed(model, plan, grams.updated_projections(model, plan)):
        loss = mean_loss(model, pool.objective)
    (out / "loss.txt").write_text(repr(loss))


def teacher(root: Path, settings: ModelConfig, out: Path) -> None:
    model, pool = load_or_stream(root / "dense", settings, "1 read"), Pool.read(root / "pool")
    top = top_log_probs(model, pool.objective, 16)
    (out / "top.txt").write_text(str([part.tolist() for part in top]))


def prune_model(root: Path, settings: ModelConfig, out: Path) -> None:
    plan = root / "whole" / "trial"
    prune(root / "dense", plan, root / "pool", settings, ReconstructionConfig(epochs=0), out)


def behaviour(root: Path, settings: ModelConfig, out: Path) -> None:
    folders, pool = (root / "dense", root / "whole" / "prune"), Pool.read(root / "pool")
    models = [load_or_stream(folder, settings, "1 read") for folder in folders]
    (out / "agreement.txt").write_text(repr(agreement(*models, pool.objective)))


STAGES: dict[str, Stage] = {
    "importance": importance,
    "gram_matrices": gram_matrices,
    "sensitivity": sensitivity,
    "trial": trial,
    "teacher": teacher,
    "prune": prune_model,
    "behaviour": behaviour,
}


def scores_of(root: Path) -> Any:
    table = ImportanceTable.read(root / "whole" / "importance")
    return score(table, Recipe(samples=tuple(range(SAMPLES))))


def contents(folder: Path) -> Any:
    """What a stage wrote: of a checkpoint, its tensors by name, however they are dealt to files."""
    if not (folder / "config.json").is_file():
        return hash_directory(folder)
    tensors = (pair for file in weight_files(folder) for pair in stored_tensors(file))
    return {name: hash(bytes(t.view(torch.uint8).flatten().numpy())) for name, t in tensors}


def apart(work: Callable[[], Any]) -> Any:
    """What `work` returns, in a process that has the libraries alone."""
    with ProcessPoolExecutor(1, get_context("fork")) as fork:
        return fork.submit(work).result()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
