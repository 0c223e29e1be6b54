from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from zenml.steps import BaseStep

from steps.zenml_support import cache
from steps.zenml_support.cache import file_dependencies

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _source_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zenml.utils.source_utils._CUSTOM_SOURCE_ROOT", str(ROOT))


def test_a_cached_step_has_one_output_as_several_have_no_steady_key() -> None:
    modules = [importlib.import_module(f"steps.{file.stem}") for file in (ROOT / "steps").glob("*")
               if file.suffix == ".py"]  # fmt: skip
    steps = {s for m in modules for s in vars(m).values() if isinstance(s, BaseStep)}
    cached = [s for s in steps if s.configuration.enable_cache is not False]
    assert len(cached) > 10
    assert {len(s.entrypoint_definition.outputs) for s in cached} == {1}


@pytest.mark.parametrize(
    ("step", "needed", "not_needed"),
    [
        ("load_model", ["checkpoint"], ["importance", "search", "finetune", "evaluation"]),
        ("filter_calibration_pool", ["calibration", "texts"], ["importance", "finetune"]),
        ("estimate_importance", ["importance", "checkpoint"], ["search", "finetune", "report"]),
        ("search", ["search", "scoring", "allocation"], ["finetune", "evaluation", "report"]),
        ("prune", ["surgery", "plan"], ["search", "finetune", "report"]),
        ("finetune", ["finetune", "checkpoint"], ["search", "report"]),
        ("evaluate", ["evaluation"], ["search", "finetune", "report"]),
        ("measure_speed", ["speed", "cost", "peak_memory"], ["search", "finetune", "report"]),
        ("compare_behaviour", ["behaviour"], ["search", "finetune", "report", "gate"]),
    ],
)
def test_a_step_depends_on_the_library_files_that_compute_its_result(
    step: str, needed: list[str], not_needed: list[str]
) -> None:
    files = set(file_dependencies(f"steps.{step}"))
    assert f"steps/{step}.py" in files
    assert {f"adapruner/{name}.py" for name in needed} <= files
    assert not {f"adapruner/{name}.py" for name in not_needed} & files
    assert not {"adapruner/config.py", "adapruner/errors.py", "steps/cache.py"} & files


def test_files_outside_the_source_root_are_named_absolutely(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("zenml.utils.source_utils._CUSTOM_SOURCE_ROOT", str(tmp_path))
    assert str(ROOT / "steps" / "prune.py") in file_dependencies("steps.prune")


def test_imports_of_every_form_are_seen() -> None:
    text = """
import adapruner.plan
from adapruner import scoring as s
def f():
    from adapruner.surgery import apply
    from . import hashing
"""
    names = set(cache._imported_names(ast.parse(text), "adapruner.search"))
    assert {
        "adapruner.plan",
        "adapruner.scoring",
        "adapruner.surgery",
        "adapruner.hashing",
    } <= names


def test_every_library_call_of_every_step_is_tracked() -> None:
    for path in sorted((ROOT / "steps").glob("*.py")):
        text = path.read_text()
        if "@cached_step" in text and "from adapruner" in text:
            assert any(f.startswith("adapruner/") for f in file_dependencies(f"steps.{path.stem}"))
