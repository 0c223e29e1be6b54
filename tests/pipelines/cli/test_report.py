"""`adapruner report` and `adapruner gate` on results of runs, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from adapruner.report.build import write_report
from pipelines.cli.main import main
from tests.adapruner.report.reports import build, settings, write_stages
from tests.pipelines import small


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    stages = write_stages(tmp_path / "stages")
    out = tmp_path / "runs" / "small"
    out.mkdir(parents=True)
    write_report(build(stages, settings(limits={"size_ratio": 0.81})), stages, out)
    return out


def edited(results: Path, name: str, **sections: Any) -> Path:
    other = results.with_name(name)
    other.mkdir()
    report = json.loads((results / "report.json").read_text())
    (other / "report.json").write_text(json.dumps({**report, "name": name, **sections}))
    return other


def test_one_run_s_page_is_written_again_and_its_table_shown(results: Path) -> None:
    page = (results / "report.html").read_bytes()
    (results / "report.html").unlink()
    shown = run("report", results)
    assert shown.exit_code == 0, shown.output
    assert (results / "report.html").read_bytes() == page
    assert "gate passed" in shown.output and "news_ppl_seq128" in shown.output
    assert str(results / "report.html") in shown.output
    elsewhere = results.parent / "page.html"
    assert run("report", results / "report.json", "-o", elsewhere).exit_code == 0
    assert elsewhere.read_bytes() == page


def test_several_runs_are_one_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = edited(results, "other")
    monkeypatch.chdir(results.parent)
    shown = run("report", results, other)
    assert shown.exit_code == 0, shown.output
    assert "other" in shown.output
    assert "2 runs side by side" in Path("comparison.html").read_text()
    assert run("report", results, other, "-o", "there.html").exit_code == 0
    assert Path("there.html").read_text() == Path("comparison.html").read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        ("no JSON", "can't be read as JSON"),
        ("[]", "not the report of a run: it has no 'name'"),
        ('{"name": "x"}', "not the report of a run: it has no 'created'"),
    ],
)
@pytest.mark.parametrize("command", ["report", "gate"])
def test_what_is_no_report_is_one_line(
    tmp_path: Path, command: str, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    ended = run(command, tmp_path)
    assert ended.exit_code == 2
    (line,) = ended.output.splitlines()
    assert line.startswith("error: ") and told in line


def test_a_page_that_can_t_be_written_is_one_line(results: Path) -> None:
    ended = run("report", results, "-o", results / "absent" / "page.html")
    assert ended.exit_code == 2
    assert ended.output.splitlines()[0].startswith("error: ")


def test_the_gate_s_exit_code_says_how_it_went(results: Path) -> None:
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


def test_another_file_s_gate_can_judge(results: Path, tmp_path: Path) -> None:
    content = small.config(tmp_path)
    content["parameters"]["config"]["evaluation"]["gate"] = {"perplexity_ratio": 1.4}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(content))
    ended = run("gate", results, "-c", tmp_path / "strict.yaml")
    assert ended.exit_code == 3
    assert "perplexity ratio of news_ppl_seq128 is 1.500" in ended.output
    assert "parameters" not in ended.output


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("evaluation.gate.mean_retenton=1", "did you mean 'mean_retention'?"),
        ("evaluation.gate.size_ratio=-1", "'size_ratio' is -1"),
        ("pruning.ratio=0.3", "evaluation.gate.LIMIT"),
        ("evaluation.gate.size_ratio", "wanted KEY=VALUE"),
    ],
)
def test_a_mistake_in_a_limit_is_one_line(results: Path, given: str, told: str) -> None:
    ended = run("gate", results, "--set", given)
    assert ended.exit_code == 2
    (line,) = ended.output.splitlines()
    assert told in line


def test_a_run_without_a_gate_asks_for_one(results: Path) -> None:
    config = {"evaluation": {"gate": None}}
    bare = edited(results, "bare", provenance={"config": config})
    ended = run("gate", bare)
    assert ended.exit_code == 2
    assert "sets no gate; give -c FILE" in ended.output
