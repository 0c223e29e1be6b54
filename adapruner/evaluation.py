"""Quality of one checkpoint: perplexity of the test texts, accuracy on zero-shot tasks.

A metric carries its protocol in its name: `wikitext2_ppl_seq128` is the perplexity of windows of
128 tokens; `piqa_acc` and `gsm8k_exact_match_strict-match` are lm-eval's, the latter with the
filter that its answers went through.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adapruner import checkpoint as ckpt
from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.errors import UserError
from adapruner.parsing import nearest
from adapruner.perplexity import perplexity, windows_of
from adapruner.progress import say


def evaluate(
    checkpoint: Path,
    pool: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    seed: int,
    out: Path,
) -> None:
    """Measures the checkpoint on the pool's test texts; writes `metrics.json`, `summary.json`."""
    loaded = ckpt.load_model(checkpoint, model)
    tokenizer = ckpt.load_tokenizer(checkpoint)
    texts = json.loads((pool / "test.json").read_text(encoding="utf-8"))
    metrics, windows = text_metrics(loaded, tokenizer, texts, evaluation)
    if evaluation.tasks:
        metrics |= task_metrics(loaded, tokenizer, evaluation, seed)
    summary = {
        "params": ckpt.inspect(checkpoint).total_params,
        "bytes": ckpt.size_on_disk(checkpoint),
        "windows": windows,
        "sequence_length": evaluation.sequence_length,
    }
    for name, value in (("metrics.json", metrics), ("summary.json", summary)):
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (out / name).write_text(text, encoding="utf-8")


def text_metrics(
    model: Any, tokenizer: Any, texts: dict[str, str], evaluation: EvaluationConfig
) -> tuple[dict[str, float], dict[str, int]]:
    """Perplexity of each text, joined and cut into non-overlapping windows; and how many there are.

    Raises UserError for a text that is shorter than one window.
    """
    length = evaluation.sequence_length
    metrics, counts = {}, {}
    for name, text in texts.items():
        tokens = tokenizer(text, verbose=False)["input_ids"]
        windows = windows_of(tokens, length, evaluation.max_windows)
        if not len(windows):
            raise UserError(
                f"test text '{name}' has {len(tokens)} tokens, a window needs {length}; "
                "give a longer text or lower evaluation.sequence_length"
            )
        metric = f"{name}_ppl_seq{length}"
        metrics[metric] = perplexity(model, windows, metric)
        counts[name] = len(windows)
    return metrics, counts


def task_metrics(
    model: Any, tokenizer: Any, evaluation: EvaluationConfig, seed: int
) -> dict[str, float]:
    """lm-eval's scores of the configured tasks: `<task>_<metric>[_<filter>]`, shares in [0, 1].

    With `tasks_dir` only the task files of that folder are known, else lm-eval's own. Raises
    UserError for a task that is not known.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = evaluation.tasks_dir
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"evaluation.tasks_dir '{folder}' is not a folder")
    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    for task in evaluation.tasks:
        if task not in manager.all_tasks:
            hint = nearest(task, sorted(manager.all_tasks))
            raise UserError(f"task '{task}' is not known{hint[:300]}")
    say(f"zero-shot: {', '.join(evaluation.tasks)}, {evaluation.limit or 'all'} rows each")
    wrapped = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=evaluation.batch_size,
        max_length=evaluation.max_length,
        device=str(model.device),
    )
    results = simple_evaluate(
        model=wrapped,
        tasks=list(evaluation.tasks),
        task_manager=manager,
        limit=evaluation.limit,
        bootstrap_iters=0,
        log_samples=False,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    return named_scores(results["results"])


def named_scores(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Scores by `<task>_<metric>[_<filter>]` of lm-eval's, which are by task and `metric,filter`.

    The filter "none" is left out; standard errors are too.
    """
    return {
        f"{task}_{key.removesuffix(',none').replace(',', '_')}": float(value)
        for task, scores in results.items()
        for key, value in scores.items()
        if isinstance(value, float) and "stderr" not in key
    }
