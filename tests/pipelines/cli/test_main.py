"""The command line as a whole: help, lazy imports, mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml

from pipelines.cli.main import main
from tests.pipelines import small

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "zenml", "mlflow", "optuna", "matplotlib", "sqlalchemy")
MODULES = f"""
import sys
from pipelines.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""
"""Runs a command, then prints which heavy packages were imported."""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def adapruner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "pipelines.cli", *arguments, cwd=cwd)


def test_help_explains_the_command(tmp_path: Path) -> None:
    result = adapruner("compress", "--help", cwd=tmp_path)
    assert result.returncode == 0
    for word in ("--set", "--home", "models:/NAME/VERSION", "runs/demo/", "Exit codes"):
        assert word in result.stdout
    assert all(name in adapruner("--help", cwd=tmp_path).stdout for name in main.commands)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["methods"], *([name, "--help"] for name in main.commands)]
)
def test_help_and_methods_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    result = python("-c", MODULES, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("compress", "pruning: {rato: 0.2}"),
        ("compress", "search: {metric: fischer}"),
        ("compare", "pruning: {rato: 0.2}"),
        ("recompress", "retry: {}"),
        ("status", "retry: {}"),
        ("schedule zenml --every 1h", "pruning: {rato: 0.2}"),
    ],
)
def test_a_mistake_in_our_sections_is_reported_without_heavy_imports(
    tmp_path: Path, command: str, mistake: str
) -> None:
    values = small.config(tmp_path)
    values["parameters"]["config"] |= yaml.safe_load(mistake)
    values["enable_cahe"] = False
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    result = python("-c", MODULES, *command.split(), "-c", "run.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: run.yaml: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == "imported:\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_a_mistake_in_an_override_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    result = adapruner("compress", "-c", "run.yaml", "--set", "pruning.rato=1", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: run.yaml with --set: ")
    assert "'pruning.rato'; did you mean 'ratio'?" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_every_command_that_can_fail_documents_its_exit_codes() -> None:
    for name in ("compress", "compare", "gate", "report", "recompress", "status", "promote"):
        command = main.commands[name]
        assert isinstance(command, click.Command)
        assert "Exit codes" in str(command.help)


@pytest.mark.slow
def test_a_tracking_uri_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    small.write_checkpoint(tmp_path / "model", 0)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    started = time.perf_counter()
    result = adapruner("compress", "-c", "run.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert time.perf_counter() - started < 60
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "http://127.0.0.1:9" in line
    assert not (tmp_path / "runs").exists()
