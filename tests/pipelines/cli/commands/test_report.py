from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.cli.commands.results import edited, run, write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path)


def test_one_run_s_page_is_written_again_and_its_table_shown(results: Path) -> None:
    page = (results / "report.html").read_bytes()
    (results / "report.html").unlink()
    result = run("report", results)
    assert result.exit_code == 0, result.output
    assert (results / "report.html").read_bytes() == page
    assert "gate passed" in result.output and "news_ppl_seq128" in result.output
    assert str(results / "report.html") in result.output
    other_page = results.parent / "page.html"
    assert run("report", results / "report.json", "-o", other_page).exit_code == 0
    assert other_page.read_bytes() == page


def test_several_runs_are_one_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = edited(results, "other")
    monkeypatch.chdir(results.parent)
    result = run("report", results, other)
    assert result.exit_code == 0, result.output
    assert "other" in result.output
    assert "2 runs side by side" in Path("comparison.html").read_text()
    assert run("report", results, other, "-o", "there.html").exit_code == 0
    assert Path("there.html").read_text() == Path("comparison.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("no JSON", "can't be read as JSON"),
        ("[]", "not the report of a run: it has no 'name'"),
        ('{"name": "x"}', "not the report of a run: it has no 'created'"),
        ('{"name": "x", "provenance": {}}', "the report of an earlier release"),
    ],
)
@pytest.mark.parametrize("command", ["report", "gate"])
def test_an_invalid_report_is_one_line(
    tmp_path: Path, command: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    result = run(command, tmp_path)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_page_that_can_t_be_written_is_one_line(results: Path) -> None:
    result = run("report", results, "-o", results / "absent" / "page.html")
    assert result.exit_code == 2
    assert result.output.splitlines()[0].startswith("error: ")
