"""A home folder on a full disk, and garbage that imports must not keep."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.cli.main import main
from pipelines.local_run import imports
from tests.pipelines import small

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MOUNTED = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=12m none home && exec "$@"', "sh"]
"""Runs a command with 12 MB of disk below `home`, in its own mount namespace."""


def can_mount(folder: Path) -> bool:
    (folder / "home").mkdir()
    if shutil.which("unshare") is None:
        return False
    result = subprocess.run([*MOUNTED, "true"], cwd=folder, capture_output=True, check=False)
    return result.returncode == 0


def test_a_full_disk_is_one_line_and_leaves_no_results(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("this system allows no mount namespaces")
    small.write_checkpoint(tmp_path / "model", seed=0)
    wide = LlamaConfig(vocab_size=256, hidden_size=512, intermediate_size=2048,
                       num_hidden_layers=2, num_attention_heads=4)  # fmt: skip
    LlamaForCausalLM(wide).save_pretrained(tmp_path / "model")
    small.write_text(tmp_path / "text.txt", seed=0)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    program = [sys.executable, "-m", "pipelines.cli", "compress", "-c", "run.yaml"]
    result = subprocess.run(
        [*MOUNTED, *program, "--home", "home"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 2, result.stderr
    assert len(errors) == 1
    assert "the disk is full" in errors[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "no such checkpoint: 'absent'"),
        ("text.txt", "expected a directory or .gguf"),
        ("bert", "architecture BertForMaskedLM is not supported"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "compare"])
def test_an_unusable_model_is_refused_before_stores_are_made(
    command: str, source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small.write_text(tmp_path / "text.txt", 0, paragraphs=2)
    (tmp_path / "bert").mkdir()
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config))
    values = small.config(tmp_path)
    values["parameters"]["config"]["model"]["source"] = source
    if command == "compare":
        values["parameters"]["comparison"] = {"methods": ["fisher"], "ratios": [0.2]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(main, [command, "-c", "run.yaml", "--home", "home"])
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "home").exists()


class _Node:
    """Garbage that only the collector frees, once it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_imports_leave_no_garbage_of_earlier_runs() -> None:
    before = weakref.ref(_Node())
    with imports():
        assert before() is None, "an earlier run's models would stay"
        with imports():
            during = weakref.ref(_Node())
        assert not gc.isenabled(), "the outer block goes on"
        assert during() is not None
    assert gc.isenabled()
    gc.unfreeze()
