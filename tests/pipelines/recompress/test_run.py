from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli.main import main
from tests.pipelines import small
from tests.pipelines.recompress.registry import Registry


@pytest.mark.parametrize("command", ["recompress", "status", "promote", "rollback"])
def test_help_tells_the_exit_codes(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0
    assert "Exit codes" in shown.output


def test_a_mistake_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recompress.yaml"
    path.write_text(yaml.safe_dump({**small.config(tmp_path), "model": []}))
    for command in ("recompress", "status"):
        ended = CliRunner().invoke(main, [command, "-c", str(path), "--home", str(tmp_path / "h")])
        assert ended.exit_code == 2
        assert "unknown key 'model'; did you mean 'models'?" in ended.output
    assert [left.name for left in tmp_path.iterdir()] == ["recompress.yaml"]


@pytest.mark.slow
def test_status_shows_what_waits_and_promotion_by_hand_is_told(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "r")
    path, home = str(registry.plan("base")), str(registry.home)
    shown = CliRunner().invoke(main, ["status", "-c", path, "--home", home])
    assert shown.output == f"The registry has no version of what {path} names.\n"
    for _ in range(2):
        registry.push("base", 0)
    ended = CliRunner().invoke(main, ["status", "-c", path, "--home", home, "--json"])
    assert ended.exit_code == 0, ended.output
    rows = json.loads(ended.stdout)
    assert [(row["version"], row["state"]) for row in rows] == [("1", "new"), ("2", "new")]
    shown = CliRunner().invoke(main, ["status", "-c", path, "--home", home])
    assert "new" in shown.output

    ended = CliRunner().invoke(main, ["promote", "base", "1", "--home", home])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["target"] == "base/1"
    ended = CliRunner().invoke(main, ["rollback", "base", "--home", home])
    assert ended.exit_code == 2
    assert "no alias 'previous'" in ended.output
