"""`make demo` on the real model and real text, at a small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapruner.config import DeviceConfig, ModelConfig, PruningConfig
from adapruner.data.pool import Pool, TestTexts
from adapruner.evaluation.perplexity import perplexity, windows_of
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.table import ImportanceTable
from adapruner.models.storage import checkpoint
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.search.results import Trials
from adapruner.search.trials.study import TRIAL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SMALL = (
    "calibration.pool_size=12",
    "calibration.update_size=48",
    "calibration.objective_tokens=512",
    "calibration.held_out_tokens=512",
    "search.trials=6",
    "search.finalists=1",
    "finetune.steps=6",
    "evaluation.max_windows=12",
    "evaluation.repeats=1",
    "evaluation.prompt_tokens=32",
    "evaluation.new_tokens=8",
    "evaluation.prompts=[Hello]",
    "evaluation.behaviour_windows=2",
    "evaluation.gate.size_ratio=0.85",
)

RELOAD = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
text = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0])
print(json.dumps([model.num_parameters(), text, "adapruner" in sys.modules]))
"""


@dataclass(frozen=True)
class Demo:
    results: Path
    home: Path
    report: dict[str, Any]
    second: str


def make_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    settings = " ".join(f"--set {setting}" for setting in SMALL)
    settings += f" --set output_dir={folder / 'runs'} --home {folder / 'home'}"
    venv = Path(sys.executable).parents[1]
    return subprocess.run(
        ["make", "demo", f"VENV={venv}", f"ARGS={settings}"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    first = make_demo(folder)
    assert first.returncode == 0, first.stderr
    second = make_demo(folder)
    assert second.returncode == 0, second.stderr
    results = folder / "runs" / "demo"
    report = json.loads((results / "report.json").read_text())
    return Demo(results, folder / "home", report, second.stdout + second.stderr)


def test_report_has_quality_cost_and_behaviour_of_all_models(demo: Demo) -> None:
    params, metrics = demo.report["params"], demo.report["metrics"]
    assert params["dense"] == 134_515_008
    ratio = demo.report["ratio"]
    assert ratio["achieved"] == pytest.approx(ratio["requested"], abs=0.005)
    dense, pruned, tuned = (
        metrics[name]["wikipedia_ppl_seq128"] for name in ("dense", "pruned", "finetuned")
    )
    assert dense < tuned < pruned < 4 * dense
    assert demo.report["gate"]["passed"] is True
    compared = demo.report["behaviour"]["texts"]["wikipedia"]
    assert all(0 < compared[model]["kl_divergence"] < 5 for model in ("pruned", "finetuned"))
    value_bytes = {"float32": 4, "bfloat16": 2}[
        checkpoint.compute_dtype(DeviceConfig(dtype="auto"))
    ]
    assert demo.report["cost"]["dense"]["kv_bytes_per_token"] == 2 * 30 * 3 * 64 * value_bytes
    memory = [demo.report["cost"][model]["memory"]["peak_bytes"] for model in ("pruned", "dense")]
    assert memory == sorted(memory)
    assert set(demo.report["timings_s"]) >= {"estimate_importance", "search", "finetune"}


def test_transformers_loads_the_checkpoint_and_generates_in_a_fresh_process(demo: Demo) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(demo.results / "checkpoint")],
        capture_output=True, text=True, check=True, cwd=demo.results,
    )  # fmt: skip
    params, text, imported = json.loads(done.stdout.splitlines()[-1])
    assert params == demo.report["params"]["pruned"]
    assert not imported
    assert len(text) > len("The capital of France is")


def test_plan_beats_element_wise_scores_of_ten_random_samples_on_the_test_texts(
    demo: Demo, tmp_path: Path
) -> None:
    table = ImportanceTable.read(next(demo.home.rglob(ImportanceTable.FILE)).parent)
    texts = TestTexts.read(next(demo.home.rglob(TestTexts.FILE)).parent).texts
    dense = next(
        path.parent for path in demo.home.rglob("model.safetensors")
        if checkpoint.inspect(path.parent).total_params == demo.report["params"]["dense"]
    )  # fmt: skip
    model = checkpoint.load_model(dense, ModelConfig(source=str(dense)))
    tokenizer = checkpoint.load_tokenizer(dense)
    windows = {
        name: windows_of(tokenizer(text)["input_ids"], 128, 12) for name, text in texts.items()
    }
    assert len(table.reference) == 10
    recipe = Recipe(metric="element1", samples=table.reference)
    target = PruningTarget(checkpoint.inspect(dense), PruningConfig())
    baseline = allocate(score(table, recipe), target, {})
    pool = Pool.read(next(demo.home.rglob(Pool.FILE)).parent)
    grams = compute_gram_matrices(model, pool.update, pool.domain, tmp_path)

    def values(plan: PruningPlan, updated: bool) -> dict[str, float]:
        down = grams.updated_projections(model, plan) if updated else {}
        with narrowed(model, plan, down):
            return {name: perplexity(model, part) for name, part in windows.items()}

    ours = PruningPlan.read(demo.results)
    selected, random = values(ours, updated=True), values(baseline, updated=True)
    assert all(selected[name] < random[name] for name in windows), (selected, random)
    reported = demo.report["metrics"]["pruned"]["wikipedia_ppl_seq128"]
    assert reported < values(baseline, updated=False)["wikipedia"]
    assert reported < values(ours, updated=False)["wikipedia"], "the update of the cut layers helps"


def test_search_has_trials_beside_the_warm_starts(demo: Demo) -> None:
    trials = Trials.read(next((demo.home / "artifacts").rglob(Trials.FILE)).parent).trials
    assert [trial.name for trial in trials].count(TRIAL) == 1
    assert [trial.number for trial in trials] == list(range(6))


def test_second_run_has_nothing_to_do(demo: Demo) -> None:
    assert "Nothing has changed since" in demo.second
    assert "Step `" not in demo.second
