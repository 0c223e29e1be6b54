from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a new process: ZenML reads its settings once, when it is imported.
SCRIPT = """
import sys
from pathlib import Path
from pipelines import stack
home = Path(sys.argv[1])
stack.use_home(home)
stack.ensure_stack(home)
stack.ensure_stack(home)
from zenml.client import Client
client = Client()
active = client.active_stack
assert active.name == "adapruner", active.name
assert active.artifact_store.path == str(home / "artifacts"), active.artifact_store.path
assert active.experiment_tracker.get_tracking_uri() == f"sqlite:///{home / 'mlflow.db'}"
assert active.model_registry.flavor == "mlflow"
assert active.orchestrator.flavor == "local"
moved = home.parent / "moved"
stack.ensure_stack(moved)
kind = active.artifact_store.type
component = client.get_stack_component(kind, "adapruner")
assert component.configuration["path"] == str(moved / "artifacts"), component.configuration
"""


def test_the_stack_is_created_once_and_follows_its_home_folder(tmp_path: Path) -> None:
    foreign = {"ZENML_STORE_URL": "http://127.0.0.1:9", "ZENML_ACTIVE_STACK_ID": "x"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "home")],
        cwd=tmp_path,
        env={**os.environ, **foreign, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "moved"}
