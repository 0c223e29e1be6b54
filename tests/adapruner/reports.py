"""Small stage directories to report on, and the report of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from adapruner import report as library
from adapruner.config import RunConfig
from adapruner.parsing import parse_config
from adapruner.plan import LayerPlan, Params, PruningPlan, Ratio

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


def settings(method: str = "lora", source: str = "model") -> RunConfig:
    values = {
        "name": "small",
        "seed": 7,
        "model": {"source": source},
        "calibration": {"source": "text.txt"},
        "finetune": {"method": method},
        "registry": {"name": "small-pruned"},
    }
    return parse_config(values, "test")


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
            "params": {"alpha_coarse": i / total},
            "best_so_far": min(values[: i + 1]),
        }
        for i, value in enumerate(values)
    ]


def speed(pruned: float) -> dict[str, Any]:
    def figures(rate: float) -> dict[str, Any]:
        rates = {"median": rate, "min": 0.9 * rate, "max": 1.1 * rate}
        return {"batch_1": {"prefill_tokens_per_s": rates, "decode_tokens_per_s": rates}}

    factor = {"batch_1": {"prefill": pruned / 100, "decode": pruned / 100}}
    protocol = {
        "device": "cpu",
        "dtype": "float32",
        "new_tokens": 32,
        "prompt_tokens": 128,
        "repeats": 5,
        "threads": 2,
    }
    return {
        "dense": figures(100.0),
        "pruned": figures(pruned),
        "speedup": factor,
        "protocol": protocol,
    }


def write_stages(root: Path, layers: int = 4, total: int = 6) -> dict[str, Path]:
    metrics = {"dense": (22.0, 0.65), "pruned": (61.0, 0.5), "finetuned": (33.0, 0.6)}
    for model, (ppl, accuracy) in metrics.items():
        values = {"news_ppl_seq128": ppl, "piqa_acc": accuracy}
        write_json(root / f"evaluate_{model}", "metrics.json", values)
    write_json(root / "filter_calibration_pool", "summary.json", POOL)
    write_json(root / "search", "plan.json", plan(layers))
    write_json(root / "search", "trials.json", trials(total))
    best = min(trials(total), key=lambda trial: trial["value"])
    write_json(root / "search", "summary.json", {"best": best, "dense_value": 21.5})
    curve = [{"step": i + 1, "loss": 3 + math.exp(-i)} for i in range(20)]
    write_json(root / "finetune", "curve.json", curve)
    write_json(root / "measure_speed", "speed.json", speed(125.0))
    for stage, length in (("load_model", 4000), ("prune", 3200)):
        (root / stage).mkdir()
        (root / stage / "model.safetensors").write_bytes(bytes(length))
    write_json(root / "evaluate_finetuned", "summary.json", {"bytes": 3210})
    return {path.name: path for path in root.iterdir()}


def build(stages: dict[str, Path], config: RunConfig | None = None) -> dict[str, Any]:
    facts = {"created": CREATED, "hashes": {"plan": "ab" * 32}}
    return library.build_report(config or settings(), stages, TIMINGS, facts)
