from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipelines.cli.commands.results import run
from tests.pipelines.recompress.registry import Registry


@pytest.mark.slow
def test_status_shows_the_state_of_every_version(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "r")
    options = ["-c", registry.plan("base"), "--home", registry.home]
    result = run("status", *options)
    assert "no version" in result.output
    for _ in range(2):
        registry.push("base", 0)
    result = run("status", *options, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["version"], row["state"]) for row in rows] == [("1", "new"), ("2", "new")]
    assert "new" in run("status", *options).output
