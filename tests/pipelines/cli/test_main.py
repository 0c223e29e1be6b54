from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.pipelines import small

ROOT = Path(__file__).parents[2]


def adapruner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_explains_itself_at_once(tmp_path: Path) -> None:
    started = time.perf_counter()
    shown = adapruner("compress", "--help", cwd=tmp_path)
    assert time.perf_counter() - started < 1
    assert shown.returncode == 0
    for word in ("--set", "--home", "models:/NAME/VERSION", "runs/demo/", "Exit codes"):
        assert word in shown.stdout
    assert "compress" in adapruner("--help", cwd=tmp_path).stdout


def test_a_mistake_in_the_file_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    ended = adapruner("compress", "-c", "run.yaml", "--set", "pruning.rato=1", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: run.yaml with --set: unknown key 'pruning.rato'; did you mean 'ratio'?"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.slow
def test_a_tracking_uri_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    started = time.perf_counter()
    ended = adapruner("compress", "-c", "run.yaml", cwd=tmp_path)
    assert ended.returncode == 2
    assert time.perf_counter() - started < 60
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the MLflow tracking URI http://127.0.0.1:9 does not answer")
    assert not (tmp_path / "runs").exists()
