"""What a run of which all is cached imports: that takes longer than what it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import small_model

ROOT = Path(__file__).parents[2]
STEPS = ("describe_hardware", "resolve_source", "register")
UNUSED = ("transformers", "peft", "datasets", "lm_eval", "torch._dynamo", "matplotlib")
SCRIPT = f"""
import ast, sys
from pathlib import Path
from adapruner.config import DeviceConfig, ModelConfig
from pipelines import stack
stack.use_home(Path(sys.argv[2]))
files = [Path("steps", f"{{name}}.py") for name in {STEPS}]
for file in files:
    for node in ast.parse(file.read_text()).body:
        for line in [node, *getattr(node, "body", [])]:
            if isinstance(line, ast.ImportFrom) and line.module != "__future__":
                exec(ast.unparse(line))
describe(DeviceConfig())
from steps.mlflow_support import registered_checkpoints
registered_checkpoints.resolve(ModelConfig(source=sys.argv[1]))
print("imported:", *(name for name in {UNUSED} if name in sys.modules))
"""
"""Imports what the steps that are never cached import when they run, and calls two of their
functions."""


@pytest.mark.slow
def test_steps_that_run_every_time_import_nothing_that_models_and_charts_need(
    tmp_path: Path,
) -> None:
    small_model("llama").save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(tmp_path / "home")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported:\n"
