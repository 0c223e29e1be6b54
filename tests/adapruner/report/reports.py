"""Small stage directories to report on, and the report of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from adapruner.report import gate
from adapruner.report import build as library
from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.pruning.plan import LayerPlan, Params, PruningPlan, Ratio

HOSTILE = "<script>alert('x')</script>"
CREATED = "2030-01-02T03:04:05+00:00"
TIMINGS = {"load_model": 31.2, "search": 143.0}
POOL = {
    "seed": 1234567,
    "sources": [
        {"setting": "finetune.source", "given": HOSTILE, "content_hash": "cd" * 32, "read": 12},
        {"setting": "calibration.source", "given": "text.txt", "read": 1500, "used": 64},
    ],
    "splits": {"test": {"available": 9, "used": 1, "sha256": "ef" * 32}},
}
DENSE = {"mlp_channels": 64, "query_heads": 8, "kv_groups": 4}


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


def write_json(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def plan(layers: int) -> dict[str, Any]:
    whole = LayerPlan(mlp_channels="0-63", query_heads="0-7")
    cut = LayerPlan(mlp_channels="0-29,31,60-63", query_heads="0-3,6-7")
    return PruningPlan(
        model_type="llama",
        layout="per_layer",
        layers=(whole, *[cut] * (layers - 1)),
        dense=(DENSE,) * layers,
        protected=(0,),
        ratio=Ratio(requested=0.2, of="all", achieved_all=0.2003, achieved_blocks=0.31),
        params=Params(dense=1_000_000, pruned=799_700),
        provenance={},
    ).model_dump(mode="json")


def trials(total: int) -> list[dict[str, Any]]:
    values = [40 + 30 / (i + 1) + 11 * (i % 3) for i in range(total)]
    return [
        {
            "number": i,
            "name": {0: "fisher-pool", 1: HOSTILE}.get(i, "trial"),
            "value": value,
            "state": "complete",
            "params": {"alpha_coarse": i / total, "set_size": 10 + i % 3},
            "held_out": value + 3 * (i % 2),
            "best_so_far": min(values[: i + 1]),
        }
        for i, value in enumerate(values)
    ]


def speed(pruned: float, settings: tuple[str, ...] = ("batch_1_prompt_128",)) -> dict[str, Any]:
    def figures(rate: float) -> dict[str, Any]:
        spread = {"q1": 0.95, "q3": 1.05, "min": 0.9, "max": 1.1, "median": 1.0}
        rates = {name: factor * rate for name, factor in spread.items()}
        return {at: {f"{p}_tokens_per_s": rates for p in ("prefill", "decode")} for at in settings}

    factor = {at: {"prefill": pruned / 100, "decode": pruned / 100} for at in settings}
    protocol = {
        "device": "cpu",
        "dtype": "float32",
        "new_tokens": 32,
        "prompt_tokens": [128],
        "repeats": 5,
        "threads": 2,
    }
    return {
        "dense": figures(100.0),
        "pruned": figures(pruned),
        "speedup": factor,
        "protocol": protocol,
    }


def cost() -> dict[str, Any]:
    def of(share: float) -> dict[str, Any]:
        flops = {phase: {"128": share * 2.7e8} for phase in ("prefill", "decode")}
        memory = {"peak_bytes": share * 9e8, "libraries_bytes": 300_000_000, "of": "process"}
        return {
            "params": share * 1_000_000,
            "weight_bytes": share * 4000,
            "flops_per_token": flops,
            "kv_bytes_per_token": 46_080,
            "kv_bytes": {"128": 46_080 * 128},
            "memory": memory,
        }

    told = {"lengths": [128], "dtype": "float32", "memory_tokens": 128, "memory_new_tokens": 32}
    return {"dense": of(1.0), "pruned": of(0.8), "protocol": told}


def behaviour() -> dict[str, Any]:
    text = {"windows": 4, "positions": 512}
    compared = {
        "pruned": {"agreement": 0.55, "kl": 0.9},
        "finetuned": {"agreement": 0.7, "kl": 0.4},
    }
    said = {"dense": f" Paris. {HOSTILE}", "pruned": " a city, a city", "finetuned": " Paris."}
    return {
        "continuations": [{"prompt": "The capital of France is", **said}],
        "new_tokens": 40,
        "texts": {"news": text | compared},
    }


def retention() -> dict[str, Any]:
    """What an evaluation of tasks adds to a report."""

    def task(model: float, broken: list[int], fixed: list[int]) -> dict[str, Any]:
        kept = {"dense": 0.65, "model": model, "retention": model / 0.65, "rows": 100}
        bounds = {"low": model / 0.65 - 0.06, "high": model / 0.65 + 0.05}
        return {**kept, **bounds, "broken": broken, "fixed": fixed}

    def of(piqa: float, boolq: float) -> dict[str, Any]:
        tasks = {"piqa": task(piqa, [3, 17, 40], [8]), "boolq": task(boolq, [1], [])}
        mean = task((piqa + boolq) / 2, [], [])
        return {"tasks": tasks, "mean": {k: mean[k] for k in mean if k not in ("broken", "fixed")}}

    return {"pruned": of(0.5, 0.55), "finetuned": of(0.6, 0.62)}


def write_stages(root: Path, layers: int = 4, total: int = 6) -> dict[str, Path]:
    metrics = {"dense": (22.0, 0.65), "pruned": (61.0, 0.5), "finetuned": (33.0, 0.6)}
    for model, (ppl, accuracy) in metrics.items():
        values = {"news_ppl_seq128": ppl, "piqa_acc": accuracy}
        write_json(root / f"evaluate_{model}", "metrics.json", values)
    write_json(root / "filter_calibration_pool", "summary.json", POOL)
    write_json(root / "search", "plan.json", plan(layers))
    write_json(root / "search", "trials.json", trials(total))
    best = min(trials(total), key=lambda trial: trial["value"])
    losses = [[(i + 1) ** -0.5 * share for share in (0.02, 0.05, 0.2)] for i in range(layers)]
    summary = {"best": best, "dense_value": 21.5,
               "layer_losses": {"removed": [0.25, 0.5, 0.95], "losses": losses}}  # fmt: skip
    write_json(root / "search", "summary.json", summary)
    curve: list[dict[str, Any]] = [{"step": i + 1, "loss": 3 + math.exp(-i)} for i in range(20)]
    for row in curve[4::5]:
        row["held_out"] = row["loss"] + 0.1
    write_json(root / "finetune", "curve.json", curve)
    write_json(root / "measure_speed", "speed.json", speed(125.0))
    write_json(root / "measure_speed", "cost.json", cost())
    write_json(root / "compare_behaviour", "behaviour.json", behaviour())
    for stage, length in (("load_model", 4000), ("prune", 3200)):
        (root / stage).mkdir()
        (root / stage / "model.safetensors").write_bytes(bytes(length))
    write_json(root / "evaluate_finetuned", "summary.json", {"bytes": 3210})
    return {path.name: path for path in root.iterdir()}


def build(
    stages: dict[str, Path], config: RunConfig | None = None, with_tasks: bool = False
) -> dict[str, Any]:
    """The report of the stages; `with_tasks` as an evaluation with two tasks and a failed one."""
    config = config or settings()
    facts = {"created": CREATED, "config_hash": "12" * 32, "hashes": {"plan": "ab" * 32}}
    report = library.build_report(config, stages, TIMINGS, facts)
    if with_tasks:
        report |= {"retention": retention(), "failed_tasks": {"winogrande": "no rows"}}
        report["gate"] = gate.judge(config.evaluation.gate, report)
    return report
