from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.pipelines import small
from tests.pipelines.cli.commands.results import edited, run, write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path)


def test_the_exit_code_says_whether_the_gate_passed(results: Path) -> None:
    passed = run("gate", results)
    assert (passed.exit_code, passed.output) == (
        0,
        "ok   share of parameters kept is 0.800; required: at most 0.810\ngate passed: small\n",
    )
    failed = run("gate", results, "--set", "evaluation.gate.size_ratio=0.7")
    assert failed.exit_code == 3
    assert failed.output.splitlines()[0].startswith("FAIL share of parameters kept is 0.800")
    more = run("gate", results, "--set", "evaluation.gate.perplexity_ratio={news: 1.2}")
    assert [line[:4] for line in more.output.splitlines()] == ["FAIL", "ok  ", "gate"]


def test_the_gate_of_a_file_replaces_that_of_the_run(results: Path, tmp_path: Path) -> None:
    content = small.config(tmp_path)
    content["parameters"]["config"]["evaluation"]["gate"] = {"perplexity_ratio": 1.4}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(content))
    result = run("gate", results, "-c", tmp_path / "strict.yaml")
    assert result.exit_code == 3
    assert "perplexity ratio of news_ppl_seq128 is 1.500" in result.output
    assert "parameters" not in result.output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.gate.mean_retenton=1", "did you mean 'mean_retention'?"),
        ("evaluation.gate.size_ratio=-1", "'size_ratio' is -1"),
        ("pruning.ratio=0.3", "evaluation.gate.LIMIT"),
        ("evaluation.gate.size_ratio", "expected KEY=VALUE"),
    ],
)
def test_a_mistake_in_a_limit_is_one_line(results: Path, override: str, message: str) -> None:
    result = run("gate", results, "--set", override)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert message in line


def test_a_run_without_a_gate_is_refused(results: Path) -> None:
    config = {"evaluation": {"gate": None}}
    bare = edited(results, "bare", provenance={"config": config})
    result = run("gate", bare)
    assert result.exit_code == 2
    assert "sets no gate; give -c FILE" in result.output
