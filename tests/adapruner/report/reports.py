"""Small stage directories to report on, and the reports of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.data.pool import (
    DomainSummary,
    PoolSummary,
    SourceSummary,
    SplitSummary,
    TokenizerSummary,
)
from adapruner.efficiency.results import Cost, Speed
from adapruner.evaluation.results import Behaviour, Evaluation, RowResult, TaskResult, write_rows
from adapruner.files import Artifact
from adapruner.pruning.plan import Params, PruningPlan, Ratio, Sparsity
from adapruner.recovery.cost_result import RecoveryCost
from adapruner.recovery.results import CurvePoint, RecoveryResult
from adapruner.report.build import build_report
from adapruner.report.sections import Inputs
from tests.adapruner.report.searches import HOSTILE, trials, write_search

CREATED = "2030-01-02T03:04:05+00:00"
TIMINGS = {"load_model": 31.2, "search": 143.0}
METRICS = {"dense": (22.0, 0.65), "pruned": (61.0, 0.5), "finetuned": (33.0, 0.6)}
"""Model -> perplexity of the text `news` and accuracy on piqa."""
WEIGHT_BYTES = {"dense": 4000, "pruned": 3200, "finetuned": 3210}
ROWS = 100
RIGHT_ROWS = {
    "piqa": {"dense": range(65), "pruned": range(20, 70), "finetuned": range(8, 68)},
    "boolq": {"dense": range(65), "pruned": range(10, 65), "finetuned": range(3, 65)},
}
"""Task -> model -> ids of the rows, of ROWS, that it answers correctly."""
SETTING = "batch_1_prompt_128"


def settings(
    method: str = "lora", source: str = "model", limits: dict[str, Any] | None = None
) -> RunConfig:
    values = {
        "name": "small",
        "seed": 7,
        "model": {"source": source},
        "calibration": {"source": "text.txt"},
        "finetune": {"method": method},
        "evaluation": {"tasks": ["piqa"], "gate": limits},
        "registry": {"name": "small-pruned"},
    }
    return parse_section(RunConfig, values, "test")


def pool_summary() -> PoolSummary:
    counts = {"too_short": 1, "duplicate": 2}
    return PoolSummary(
        seed=1234567,
        min_tokens=16,
        sequence_length=128,
        tokenizer=TokenizerSummary(type="LlamaTokenizer", vocabulary=32_000, begins_with_bos=True),
        sources=[
            SourceSummary(
                setting="finetune.source", uri=HOSTILE, content_hash="cd" * 32, read=12,
                kept=9, **counts,
            ),
            SourceSummary(
                setting="calibration.source", uri="text.txt", content_hash="ab" * 32, read=1500,
                kept=1497, used=64, **counts,
            ),
        ],
        domains=[
            DomainSummary(name=HOSTILE, calibration=40, update=60),
            DomainSummary(name="cluster 2: city, river", calibration=24, update=1036),
        ],
        splits={
            "test": SplitSummary(available=9, documents=9, used=1, tokens=512, sha256="ef" * 32)
        },
    )  # fmt: skip


def speed(pruned: float, settings: tuple[str, ...] = (SETTING,)) -> Speed:
    """Speeds around 100 tokens/s of the dense model and `pruned` tokens/s of the pruned one."""

    def throughput(median: float) -> dict[str, Any]:
        factors = {"q1": 0.95, "q3": 1.05, "min": 0.9, "max": 1.1, "median": 1.0}
        spread = {name: factor * median for name, factor in factors.items()}
        rates = {f"{phase}_tokens_per_s": spread for phase in ("prefill", "decode")}
        return dict.fromkeys(settings, rates)

    ratio = pruned / 100
    return Speed.model_validate(
        {
            "dense": throughput(100.0),
            "pruned": throughput(pruned),
            "speedup": {name: {"prefill": ratio, "decode": ratio} for name in settings},
            "protocol": {
                "batch_sizes": [1],
                "prompt_tokens": [128],
                "new_tokens": 32,
                "repeats": 5,
                "threads": 2,
                "device": "cpu",
                "dtype": "float32",
            },
        }
    )


def cost() -> Cost:
    def model(share: float) -> dict[str, Any]:
        flops = int(share * 2.7e8)
        peak = {"peak_bytes": int(share * 9e8), "libraries_bytes": 300_000_000, "of": "process"}
        return {
            "params": int(share * 1_000_000),
            "weight_bytes": int(share * 4000),
            "flops_per_token": {phase: {"128": flops} for phase in ("prefill", "decode")},
            "kv_bytes_per_token": 46_080,
            "kv_bytes": {"128": 46_080 * 128},
            "memory": peak,
        }

    protocol = {
        "lengths": [128],
        "dtype": "float32",
        "memory_tokens": 128,
        "memory_new_tokens": 32,
    }
    return Cost.model_validate({"dense": model(1.0), "pruned": model(0.8), "protocol": protocol})


def behaviour() -> Behaviour:
    continuations = {
        "prompt": "The capital of France is",
        "dense": f" Paris. {HOSTILE}",
        "pruned": " a city, a city",
        "finetuned": " Paris.",
    }
    text = {
        "windows": 4,
        "positions": 512,
        "pruned": {"agreement": 0.55, "kl_divergence": 0.9},
        "finetuned": {"agreement": 0.7, "kl_divergence": 0.4},
    }
    return Behaviour.model_validate(
        {"continuations": [continuations], "new_tokens": 40, "texts": {"news": text}}
    )


def recovery(steps: int = 20) -> RecoveryResult:
    curve = tuple(
        CurvePoint(
            step=i + 1,
            loss=3 + math.exp(-i),
            held_out=3.1 + math.exp(-i) if i % 5 == 4 else None,
        )
        for i in range(steps)
    )
    return RecoveryResult(method="lora", loss="distill", examples=40, curve=curve)


def write_evaluation(directory: Path, model: str, *, tasks: bool = False) -> Path:
    """The directory of an evaluation; with `tasks` two have rows, and winogrande failed."""
    directory.mkdir(exist_ok=True)
    perplexity, accuracy = METRICS[model]
    results: dict[str, TaskResult] = {}
    if tasks:
        for task, right in RIGHT_ROWS.items():
            score = len(right[model]) / ROWS
            results[task] = TaskResult(metric="acc", score=score, rows=ROWS, error=None)
            write_rows(directory, task, [row(i, i in right[model]) for i in range(ROWS)])
        failed = TaskResult(metric=None, score=None, rows=0, error="no rows")
        results["winogrande"] = failed
    Evaluation(
        metrics={"news_ppl_seq128": perplexity, "piqa_acc": accuracy},
        tasks=results,
        windows={"news": 4},
        sequence_length=128,
        params=1_000_000,
        weight_bytes=WEIGHT_BYTES[model],
    ).write(directory)
    return directory


def row(number: int, right: bool) -> RowResult:
    return {"id": number, "right": right, "choice": 0, "answer": 0, "margin": 0.0}


def write_stages(
    root: Path, layers: int = 4, total: int = 6, *, tasks: bool = False
) -> dict[str, Path]:
    """Stage -> its directory in `root`, of a run in which every stage ran."""
    root.mkdir(exist_ok=True)
    stages = {"search": write_search(root / "search", trials(total), layers)}
    for model in METRICS:
        stage = f"evaluate_{model}"
        stages[stage] = write_evaluation(root / stage, model, tasks=tasks)
    artifacts: dict[str, list[Artifact]] = {
        "filter_calibration_pool": [pool_summary()],
        "finetune": [recovery()],
        "measure_recovery": [RecoveryCost()],
        "measure_efficiency": [speed(125.0), cost()],
        "compare_behaviour": [behaviour()],
    }
    for stage, written in artifacts.items():
        stages[stage] = root / stage
        stages[stage].mkdir()
        for artifact in written:
            artifact.write(stages[stage])
    return stages


def build(stages: dict[str, Path], config: RunConfig | None = None) -> dict[str, Any]:
    facts = {"created": CREATED, "config_hash": "12" * 32, "hashes": {"plan": "ab" * 32}}
    return build_report(Inputs(config or settings(), stages, TIMINGS, facts))


def sparse_report(root: Path, result: RecoveryResult | None = None) -> dict[str, Any]:
    """The report of a model with 424,000 zeros, trained by AST."""
    stages = write_stages(root / "stages")
    plan = PruningPlan.read(stages["search"])
    whole = plan.layers[0]
    plan.model_copy(
        update={
            "layout": "semi_structured",
            "layers": (whole,) * len(plan.layers),
            "sparsity": Sparsity(pattern="2:4", score="magnitude", zeros=424_000),
            "ratio": Ratio(requested=0.5, of="blocks", achieved_all=0, achieved_blocks=0),
            "params": Params(dense=1_000_000, pruned=1_000_000),
        }
    ).write(stages["search"])
    (result or RecoveryResult(method="ast", loss="both")).write(stages["finetune"])
    return build(stages)


def minimal_report(root: Path) -> dict[str, Any]:
    """The report of a run of which only the search is known."""
    config = settings(method="none")
    return build_report(Inputs(config, {"search": write_search(root, trials(1))}, {}, {}))
