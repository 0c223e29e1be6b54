"""Quality of one checkpoint: perplexity of the test texts and zero-shot accuracy.

The name of a metric states its protocol: `wikitext2_ppl_seq128` is the perplexity on windows of 128
tokens; `piqa_acc` and `gsm8k_exact_match_strict-match` are lm-eval's metrics, the latter with the
filter applied to its answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.config import DeviceConfig, QualityConfig
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import perplexity, windows_of
from adapruner.evaluation.results import Evaluation, write_rows
from adapruner.evaluation.tasks.selection import batch_size_of
from adapruner.evaluation.tasks.zero_shot import zero_shot
from adapruner.files import write_json
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream

FAILED = "failed.json"
"""Task -> error. A stage with this file is not reused, as the cause may be temporary."""


def evaluate(
    checkpoint: Path,
    texts: dict[str, str],
    tasks: Path,
    device: DeviceConfig,
    quality: QualityConfig,
    out: Path,
) -> Evaluation:
    """Measures perplexity on `texts` (name -> text) and runs the tasks selected in `tasks`.

    Writes `evaluation.json`, `rows/<task>.json` for every task whose score is a share of right
    rows, and `failed.json` when a task failed. Raises UserError for a text shorter than one window.
    """
    model = load_or_stream(checkpoint, device, "1 read for each text and batch of questions")
    tokenizer = ckpt.load_tokenizer(checkpoint)
    metrics, windows = measure_perplexity(model, tokenizer, texts, quality)
    outcome = zero_shot(model, tokenizer, quality, tasks, batch_size_of(tasks))
    evaluation = Evaluation(
        metrics=metrics | outcome.metrics,
        tasks=outcome.tasks,
        windows=windows,
        sequence_length=quality.sequence_length,
        params=ckpt.inspect(checkpoint).total_params,
        weight_bytes=ckpt.size_on_disk(checkpoint),
    )
    evaluation.write(out)
    for task, rows in outcome.rows.items():
        write_rows(out, task, rows)
    if evaluation.failed:
        write_json(out / FAILED, evaluation.failed)
    return evaluation


def measure_perplexity(
    model: Any, tokenizer: Any, texts: dict[str, str], quality: QualityConfig
) -> tuple[dict[str, float], dict[str, int]]:
    """Metric -> perplexity, and text -> number of windows.

    Raises UserError for a text that is shorter than one window.
    """
    length = quality.sequence_length
    metrics, counts = {}, {}
    for name, text in texts.items():
        tokens = tokenizer(text, verbose=False)["input_ids"]
        windows = windows_of(tokens, length, quality.max_windows)
        if not len(windows):
            raise UserError(
                f"test text '{name}' has {len(tokens)} tokens, a window needs {length}; "
                "use a longer text or lower evaluation.sequence_length"
            )
        metric = f"{name}_ppl_seq{length}"
        metrics[metric] = perplexity(model, windows, metric)
        counts[name] = len(windows)
    return metrics, counts
