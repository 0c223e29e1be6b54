from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines import small

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
# In a new process: ZenML reads its settings once, when it is imported.
SCRIPT = """
import sys
from pathlib import Path
from pipelines import stack
stack.use_home(Path("home"))
stack.ensure_stack(Path("home"))
from click.testing import CliRunner
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
from pipelines.cli.main import main
command = ["schedule", "zenml", "-c", "run.yaml", "--cron", "0 3 * * 1-5"]
refused = CliRunner().invoke(main, command)
assert refused.exit_code == 2, refused.output
assert "'adapruner' (local) supports no schedules" in refused.stderr
assert "adapruner schedule install" in refused.stderr
client = Client()
client.create_flavor("tests.pipelines.schedules.takes_schedules.Flavor", Kind.ORCHESTRATOR)
client.create_stack_component("timed", "takes-schedules", Kind.ORCHESTRATOR, {})
kept = {kind: "adapruner" for kind in (Kind.ARTIFACT_STORE, Kind.EXPERIMENT_TRACKER)}
client.create_stack("timed", {Kind.ORCHESTRATOR: "timed", **kept})
client.activate_stack("timed")
accepted = CliRunner().invoke(main, command)
assert accepted.exit_code == 0, (accepted.output, accepted.exception)
assert "scheduled at 0 3 * * 1-5" in accepted.stdout
(schedule,) = client.list_schedules().items
assert (schedule.name, schedule.cron_expression) == ("adapruner-run", "0 3 * * 1-5")
"""


def test_a_stack_gets_the_schedule_or_the_message_names_alternatives(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
