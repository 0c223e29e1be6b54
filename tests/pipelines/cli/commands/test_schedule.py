from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.schedules import SCHEDULERS
from tests.pipelines.schedules.users import make_home

ROOT = Path(__file__).parents[4]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home where systemd does not run and the crontab is a file."""
    return make_home(tmp_path, monkeypatch)


def adapruner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", "schedule", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_install_previews_and_writes_a_schedule_that_list_and_remove_show(
    home: Path, scheduler: str
) -> None:
    (home / "My_Models.yaml").write_text("models: []\n")
    (home / "run").mkdir()
    options = ["install", "-c", "../My_Models.yaml", "--every", "15m", "--with", scheduler]
    dry = adapruner(*options, "--dry-run", cwd=home / "run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.endswith("Nothing was written.\n")
    assert not (home / "config").exists()
    assert not (home / "crontab").exists()
    assert not list((home / "run").iterdir())
    shown = adapruner(*options, cwd=home / "run").stdout
    assert dry.stdout.removesuffix("Nothing was written.\n") in shown
    row = adapruner("list", cwd=home).stdout.split("\t")
    assert row[:2] == ["my-models", scheduler]
    assert "recompress" in row[3]
    assert "Removed 'my-models'" in adapruner("remove", "-c", "My_Models.yaml", cwd=home).stdout
    assert adapruner("list", cwd=home).stdout == ""


def test_a_schedule_of_another_scheduler_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "a.yaml").write_text("models: []\n")
    for name in SCHEDULERS:
        arguments = ["schedule", "install", "-c", "a.yaml", "--every", "1h", "--with", name]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        (row,) = CliRunner().invoke(main, ["schedule", "list"]).stdout.splitlines()
        assert row.split("\t")[1] == name


def test_mistakes_are_one_line_and_write_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "passes.yaml").write_text("models: []\n")
    (home / "open.env").touch(mode=0o644)
    (home / "open.env").chmod(0o644)
    file = ["-c", "passes.yaml"]
    for arguments, message in (
        (["install", "-c", "none.yaml", "--every", "15m"], "no such file"),
        (["install", *file], "give one of --every"),
        (["install", *file, "--every", "7m"], "divide an hour"),
        (["install", *file, "--every", "5m", "--name", "../x"], "lower-case letters"),
        (["install", *file, "--every", "5m", "--env-file", "open.env"], "chmod 600"),
        (["remove"], "give -c FILE or --name"),
        (["manifest", *file, "--every", "5m", "--image", "x;y"], "expected NAME:TAG"),
    ):
        result = CliRunner().invoke(main, ["schedule", *arguments])
        assert result.exit_code == 2, arguments
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (home / "config").exists()
    assert not (home / "crontab").exists()


def test_a_manifest_is_yaml_with_the_file_and_the_options(home: Path) -> None:
    (home / "passes.yaml").write_text("models: []\n")
    options = ["--every", "15m", "--image", "a:1", "--memory", "8Gi", "--namespace", "models"]
    result = adapruner("manifest", "-c", "passes.yaml", *options, cwd=home)
    assert result.returncode == 0, result.stderr
    config, _volume, job = yaml.safe_load_all(result.stdout)
    assert config["data"] == {"recompress.yaml": "models: []\n"}
    assert job["metadata"]["namespace"] == "models"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "a:1"
