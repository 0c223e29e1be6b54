from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from zenml.steps import BaseStep

from steps.zenml_support.cache import file_dependencies

ROOT = Path(__file__).parents[3]
STEPS = sorted(path.stem for path in (ROOT / "steps").glob("*.py") if path.stem != "__init__")

MODELS = {"models/storage/checkpoint.py", "models/families.py"}
UNTRACKED_PREFIXES = (
    "adapruner/config",
    "adapruner/dependencies",
    "adapruner/errors",
    "adapruner/files",
    "adapruner/locks",
    "adapruner/progress",
    "adapruner/temporary",
    "steps/zenml_support",
    "steps/mlflow_support/tracking",
)

# Step -> library files that compute its result, and folders or files that do not.
DEPENDENCIES: dict[str, tuple[set[str], set[str]]] = {
    "load_model": (
        {"models/storage/sources.py", "models/storage/checkpoint.py"},
        {"importance", "search", "recovery", "evaluation", "report", "data"},
    ),
    "filter_calibration_pool": (
        {"data/build_pool.py", "data/texts/sources.py", "data/contamination.py"},
        {"importance", "search", "recovery", "report"},
    ),
    "select_test_texts": (
        {"data/pool.py"},
        {"importance", "search", "recovery", "report", "evaluation", "pruning"},
    ),
    "estimate_importance": (
        {"importance/statistics.py", "importance/gradients.py", "data/pool.py"} | MODELS,
        {"search", "recovery", "report", "importance/metrics.py"},
    ),
    "redraw_reference_subset": (
        {"importance/statistics.py", "importance/table.py"} | MODELS,
        {"search", "recovery", "report", "importance/metrics.py"},
    ),
    "compute_gram_matrices": (
        {
            "pruning/updates/gram_matrices.py",
            "pruning/updates/activations.py",
            "data/pool.py",
        }
        | MODELS,
        {"search", "recovery", "report", "pruning/allocation", "pruning/reconstruction"},
    ),
    "measure_latency": (
        {
            "pruning/costs/measure_latency.py",
            "pruning/surgery.py",
            "efficiency/decode.py",
            "efficiency/latency_table.py",
        }
        | MODELS,
        {"search", "recovery", "report", "importance", "pruning/allocation"},
    ),
    "search": (
        {
            "search/search.py",
            "search/signatures.py",
            "pruning/updates/gram_matrices.py",
            "search/trials/objective.py",
            "importance/metrics.py",
            "pruning/reconstruction/least_squares.py",
            "pruning/allocation/global_ranking.py",
        },
        {"recovery", "report", "evaluation/tasks/zero_shot.py", "evaluation/quality.py"},
    ),
    "prune": (
        {
            "pruning/apply.py",
            "pruning/surgery.py",
            "pruning/reconstruction/bias.py",
            "pruning/reconstruction/least_squares.py",
            "pruning/reconstruction/none.py",
        },
        {"search", "recovery", "report", "importance", "pruning/allocation"},
    ),
    "compute_teacher_logits": (
        {"recovery/training/teacher_logits.py", "recovery/training/examples.py"} | MODELS,
        {"search", "report", "pruning", "recovery/lora.py", "recovery/finetune.py"},
    ),
    "finetune": (
        {
            "recovery/finetune.py",
            "recovery/lora.py",
            "recovery/training/teacher_logits.py",
            "recovery/distributed/processes.py",
            "models/distributed/sharding.py",
        }
        | MODELS,
        {"search", "report", "importance", "pruning"},
    ),
    "evaluate": (
        {"evaluation/quality.py", "evaluation/tasks/zero_shot.py", "evaluation/perplexity.py"}
        | MODELS,
        {"search", "recovery", "report", "importance", "evaluation/retention.py"},
    ),
    "measure_efficiency": (
        {"efficiency/cost.py", "efficiency/speed.py", "efficiency/peak_memory.py"} | MODELS,
        {"search", "recovery", "report", "importance", "evaluation"},
    ),
    "compare_behaviour": (
        {"evaluation/behaviour.py"} | MODELS,
        {"search", "report", "importance", "efficiency"},
    ),
    "export": (
        {"export/gguf.py", "export/gguf_tensors.py", "export/decilm.py"} | MODELS,
        {"search", "recovery", "report", "importance", "pruning", "evaluation"},
    ),
    "measure_recovery": (
        {"recovery/cost.py", "recovery/lora.py", "recovery/grouped.py"} | MODELS,
        {"search", "report", "importance", "pruning"},
    ),
    "report": (
        {
            "report/build.py",
            "report/sections/quality.py",
            "report/templates/quality.html.j2",
            "report/templates/macros.html.j2",
        },
        {"search/search.py", "recovery/training", "pruning/surgery.py"},
    ),
    "measure_candidate": (
        {
            "comparison/candidate.py",
            "search/search.py",
            "pruning/apply.py",
            "pruning/reconstruction/bias.py",
            "recovery/lora.py",
            "evaluation/quality.py",
        },
        {"report", "comparison/table.py", "comparison/chart.py"},
    ),
}


@pytest.fixture(autouse=True)
def _source_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zenml.utils.source_utils._CUSTOM_SOURCE_ROOT", str(ROOT))


def cached_steps() -> list[tuple[str, BaseStep]]:
    """The cached steps of the project, each with the name of its module."""
    named = [(name, getattr(importlib.import_module(f"steps.{name}"), name)) for name in STEPS]
    return [(name, step) for name, step in named if step.configuration.enable_cache is not False]


def test_every_module_of_steps_holds_the_step_of_its_name() -> None:
    for name in STEPS:
        assert isinstance(getattr(importlib.import_module(f"steps.{name}"), name), BaseStep)


def test_the_dependencies_of_every_cached_step_are_checked() -> None:
    assert {name for name, _ in cached_steps()} == set(DEPENDENCIES)


def test_a_cached_step_has_one_output() -> None:
    """The key that ZenML computes for several outputs depends on the order of a set."""
    assert {len(step.entrypoint_definition.outputs) for _, step in cached_steps()} == {1}


@pytest.mark.parametrize("step", DEPENDENCIES)
def test_a_step_depends_on_the_library_files_that_compute_its_result(step: str) -> None:
    needed, not_needed = DEPENDENCIES[step]
    files = set(file_dependencies(f"steps.{step}"))
    assert f"steps/{step}.py" in files
    assert {f"adapruner/{name}" for name in needed} - files == set()
    excluded = tuple(
        f"adapruner/{name}" if name.endswith(".py") else f"adapruner/{name}/" for name in not_needed
    )
    modules = {file for file in files if not file.endswith("__init__.py")}
    assert {file for file in modules if file.startswith(excluded)} == set()


@pytest.mark.parametrize("step", STEPS)
def test_no_step_depends_on_settings_messages_or_storage(step: str) -> None:
    files = file_dependencies(f"steps.{step}")
    assert [file for file in files if file.startswith(UNTRACKED_PREFIXES)] == []


def test_files_outside_the_source_root_have_absolute_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("zenml.utils.source_utils._CUSTOM_SOURCE_ROOT", str(tmp_path))
    assert str(ROOT / "steps" / "prune.py") in file_dependencies("steps.prune")
