from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.cli.main import main
from tests.pipelines import small

ROOT = Path(__file__).parents[4]
LIMIT = 8 * 2**30

LARGE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "dtype": "bfloat16",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    small.write_checkpoint(tmp_path / "model", 0)
    small.write_text(tmp_path / "text.txt", 0, paragraphs=10)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small.config(tmp_path)))
    return tmp_path / "run.yaml"


def estimate(run: Path, *arguments: str) -> Result:
    home = str(run.parent / "home")
    return CliRunner().invoke(main, ["estimate", "-c", str(run), "--home", home, *arguments])


def test_stages_are_listed_and_nothing_is_written(run: Path) -> None:
    before = sorted(run.parent.rglob("*"))
    result = estimate(run)
    assert result.exit_code == 0, result.output
    assert "parameters in 2 layers" in result.output
    for stage in ("estimate_importance", "search", "prune", "finetune", "all"):
        assert f" {stage} " in result.output
    assert sorted(run.parent.rglob("*")) == before


@pytest.mark.slow
def test_a_large_model_is_estimated_from_its_config_alone(run: Path) -> None:
    (run.parent / "large").mkdir()
    (run.parent / "large" / "config.json").write_text(json.dumps(LARGE))
    arguments = ["--model", str(run.parent / "large"), "--set", "model.dtype=bfloat16"]
    result = estimate(run, *arguments)
    assert result.exit_code == 0, result.output
    assert "6.7 B parameters in 32 layers" in result.output


@pytest.mark.slow
def test_a_run_whose_models_can_not_be_in_memory_is_refused_with_the_settings_to_change(
    run: Path,
) -> None:
    deep = LARGE | {"hidden_size": 512, "intermediate_size": 22016, "num_hidden_layers": 100}
    (run.parent / "model" / "config.json").write_text(json.dumps(deep))

    def adapruner(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [command, "-c", str(run), "--home", f"{run.parent}/home", *arguments]
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *words],
            capture_output=True, text=True, cwd=run.parent, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
        )  # fmt: skip

    refused = adapruner("compress")
    assert refused.returncode == 2, refused.stderr
    (error,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    for setting in ("finetune.method: none", "evaluation.speed: false"):
        assert setting in error
    assert not (run.parent / "home").exists()
    changed = ("--set", "finetune.method=none", "--set", "evaluation.speed=false")
    output = adapruner("estimate", *changed).stdout
    assert "layers are streamed from disk" in output
    assert "can't be streamed" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "model.source=absent"], "no such checkpoint: 'absent'"),
        (["--set", "model.source=models:/x/1"], "name its directory"),
        (["--model", "."], "it has no config.json"),
        (["--set", "search.trails=3"], "did you mean 'trials'"),
    ],
)
def test_a_mistake_is_one_line(run: Path, arguments: list[str], message: str) -> None:
    result = estimate(run, *arguments)
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert message in line
