"""report.json: read from the stages, complete, the same for the same inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapruner.report import sections
from adapruner.report.build import build_report, write_report
from adapruner.report.page import page
from adapruner.report.sections import Inputs, Section
from adapruner.report.terminal import report_table
from tests.adapruner.report.reports import TIMINGS, build, minimal_report, settings, write_stages
from tests.adapruner.report.searches import search_result, trials, write_search


def test_report_holds_the_results_of_every_stage(stages: dict[str, Path]) -> None:
    report = build(stages)
    assert report["ratio"] == {
        "requested": 0.2,
        "of": "blocks",
        "achieved": 0.31,
        "achieved_all": 0.2003,
        "achieved_blocks": 0.31,
    }
    assert report["params"] == {"dense": 1_000_000, "pruned": 799_700, "removed": 200_300}
    assert report["weight_bytes"] == {"dense": 4000, "pruned": 3200, "finetuned": 3210}
    assert report["metrics"]["finetuned"]["news_ppl_seq128"] == 33.0
    assert report["recovery"]["curve"][4]["held_out"] == pytest.approx(3.118, abs=1e-3)
    assert report["search"]["sensitivity"]["removed"] == [0.25, 0.5, 0.95]
    assert report["pool"]["splits"]["test"]["used"] == 1
    assert report["timings_s"] == TIMINGS
    assert report["provenance"]["config"]["pruning"]["ratio"] == 0.2


def test_same_inputs_give_the_same_files(stages: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(build(stages), stages, tmp_path / name)
    for file in ("report.json", "report.html", "plan.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    plan = (stages["search"] / "plan.json").read_bytes()
    assert (tmp_path / "a" / "plan.json").read_bytes() == plan


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    rows = list(trials(5))
    rows[2] = rows[2].model_copy(update={"values": {"perplexity": float("inf")}})
    stages = {"search": write_search(tmp_path / "search", tuple(rows))}
    report = build(stages)
    values = [trial["values"]["perplexity"] is None for trial in report["search"]["trials"]]
    assert values == [False, False, True, False, False]
    json.dumps(report, allow_nan=False)


def test_stages_that_did_not_run_leave_null(tmp_path: Path) -> None:
    report = minimal_report(tmp_path)
    for name in ("retention", "metrics", "weight_bytes"):
        assert set(report[name].values()) == {None}
    for name in ("behaviour", "cost", "speed", "recovery", "pool"):
        assert report[name] is None


def test_no_two_sections_write_the_same_entry() -> None:
    names = [name for section in sections.SECTIONS for name in section.entries]
    assert len(names) == len(set(names))
    assert not {"name", "created", "gate"} & set(names)


def test_section_in_the_table_is_in_the_report_and_on_the_page(
    stages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(inputs: Inputs) -> dict[str, Any]:
        return {"grams": len(inputs.stages) * 1.5}

    def view(report: dict[str, Any]) -> dict[str, Any] | None:
        footprint = report.get("footprint")
        return footprint and {"lead": "Measured.", "facts": [("CO2", f"{footprint['grams']} g")]}

    before = build(stages)
    section = Section("footprint", "Footprint", view, entries={"footprint": collect})
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, section))
    report = build(stages)
    grams = len(stages) * 1.5
    assert report["footprint"] == {"grams": grams}
    html = page(report)
    assert '<section id="footprint">\n<h2>Footprint</h2>' in html
    assert f"<dt>CO2</dt><dd>{grams} g</dd>" in html
    assert "Footprint" not in page(before), "a report from before the section has no such part"


def test_rows_of_a_section_are_in_the_terminal(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = next(section for section in sections.SECTIONS if section.id == "quality")
    section = Section("more", "More", lambda report: None, rows=quality.rows)
    before = report_table(report).row_count
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, section))
    assert report_table(report).row_count == before + len(quality.rows(report))


def test_objective_of_the_search_decides_the_unit_in_the_report(tmp_path: Path) -> None:
    stages = {"search": write_search(tmp_path / "search", trials(6, "kl"))}
    report = build(stages)
    assert report["search"]["objectives"] == ["kl"]
    shown = page(report)
    assert "KL divergence from the dense model on the objective text" in shown
    assert "perplexity on the objective text" not in shown


def test_importance_metric_without_a_search_has_a_report(tmp_path: Path) -> None:
    (row,) = trials(1)
    single = row.model_copy(update={"name": "fisher", "held_out": None, "params": {}})
    stages = {
        "search": write_search(
            tmp_path / "search",
            (single,),
            held_out=None,
            held_out_tokens=None,
            sensitivity=None,
            study=None,
        )
    }
    report = build_report(Inputs(settings(), stages, {"search": 1.0}, {}))
    assert [start["name"] for start in report["search"]["warm_starts"]] == ["fisher"]
    assert "which is the warm start fisher" in page(report)


def test_all_fields_of_the_search_summary_are_in_the_report(tmp_path: Path) -> None:
    stages = write_stages(tmp_path / "stages")
    assert set(search_result(trials(6)).model_dump()) <= set(build(stages)["search"])
