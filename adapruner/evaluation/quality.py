"""Quality of one checkpoint: perplexity of the test texts, accuracy on zero-shot tasks.

A metric carries its protocol in its name: `wikitext2_ppl_seq128` is the perplexity of windows of
128 tokens; `piqa_acc` and `gsm8k_exact_match_strict-match` are lm-eval's, the latter with the
filter that its answers went through.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapruner.models import checkpoint as ckpt
from adapruner.config import DeviceConfig, QualityConfig
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import perplexity, windows_of
from adapruner.evaluation.zero_shot import zero_shot

FAILED = "failed.json"
"""Names the tasks that failed; a result with it is not reused, as the reason may pass."""


def evaluate(
    checkpoint: Path,
    texts: Path,
    tasks: Path,
    model: DeviceConfig,
    quality: QualityConfig,
    batch_size: int,
    out: Path,
) -> None:
    """Measures the checkpoint on `texts`/test.json and on the tasks that `tasks.resolve` left.

    Writes `metrics.json` (metric -> number), `summary.json`, `tasks.json` and `rows/<task>.json`
    (see `zero_shot.Outcome`), and `failed.json` when a task failed. `batch_size` sets the memory
    that tasks take, and does not change what they give.
    """
    loaded = ckpt.load_model(checkpoint, model)
    tokenizer = ckpt.load_tokenizer(checkpoint)
    named = json.loads((texts / "test.json").read_text(encoding="utf-8"))
    metrics, windows = text_metrics(loaded, tokenizer, named, quality)
    outcome = zero_shot(loaded, tokenizer, quality, tasks, batch_size)
    summary = {
        "params": ckpt.inspect(checkpoint).total_params,
        "bytes": ckpt.size_on_disk(checkpoint),
        "windows": windows,
        "sequence_length": quality.sequence_length,
    }
    files = {"metrics.json": metrics | outcome.metrics, "summary.json": summary}
    files["tasks.json"] = outcome.tasks
    files |= {f"rows/{name}.json": rows for name, rows in outcome.rows.items()}
    if failed := {n: told["error"] for n, told in outcome.tasks.items() if told["error"]}:
        files[FAILED] = failed
    for name, value in files.items():
        path = out / name
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        path.write_text(text, encoding="utf-8")


def text_metrics(
    model: Any, tokenizer: Any, texts: dict[str, str], quality: QualityConfig
) -> tuple[dict[str, float], dict[str, int]]:
    """Perplexity of each text, joined and cut into non-overlapping windows; and how many there are.

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
                "give a longer text or lower evaluation.sequence_length"
            )
        metric = f"{name}_ppl_seq{length}"
        metrics[metric] = perplexity(model, windows, metric)
        counts[name] = len(windows)
    return metrics, counts
