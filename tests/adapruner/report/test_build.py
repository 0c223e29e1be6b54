"""The report: read from the stages' files, complete as JSON, safe and self-contained as a page."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from adapruner.report import build as library
from adapruner.config.parsing import parse_section
from adapruner.report.files import complete
from adapruner.report.page import page
from adapruner.report.rows import rows, verdict
from adapruner.report.format import count, duration, flops, lower_is_better, number, size
from tests.adapruner.report.reports import HOSTILE, build, settings, speed, trials, write_json, write_stages


def page_of(report: dict[str, Any]) -> str:
    return page(complete(report))


def written(report: dict[str, Any], stages: dict[str, Path], out: Path) -> str:
    out.mkdir()
    library.write(report, stages, out)
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "stages").mkdir()
    return write_stages(tmp_path / "stages")


def test_it_holds_what_programs_ask_for(stages: dict[str, Path]) -> None:
    report = build(stages)
    params = report["params"]
    assert (params["dense"], params["pruned"], params["removed"]) == (1_000_000, 799_700, 200_300)
    assert (params["ratio_requested"], params["ratio_achieved"]) == (0.2, 0.2003)
    sizes = [params[f"bytes_{model}"] for model in ("dense", "pruned", "finetuned")]
    assert sizes == [4000, 3200, 3210]
    assert set(report["metrics"]) == {"dense", "pruned", "finetuned"}
    assert report["metrics"]["finetuned"]["news_ppl_seq128"] == 33.0
    assert report["timings_s"]["search"] == 143.0
    assert report["provenance"]["seed"] == 7
    assert report["provenance"]["config"]["pruning"]["ratio"] == 0.2
    assert [start["number"] for start in report["search"]["warm_starts"]] == [0, 1]
    first, second = report["plan"]["layers"][:2]
    assert first["protected"] and first["mlp_width"] == 64
    assert (second["mlp_width"], second["query_heads"], second["kv_groups"]) == (35, 6, 3)


def test_same_inputs_give_the_same_bytes(stages: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(build(stages), stages, tmp_path / name)
    for file in ("report.json", "report.html", "plan.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "plan.json").read_bytes() == (
        stages["search"] / "plan.json"
    ).read_bytes()


class References(HTMLParser):
    """Collects whatever an element of a page could fetch, and the ids that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
                self.fetched.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def parse(page: str) -> References:
    found = References()
    found.feed(page)
    return found


def test_the_page_asks_for_nothing_outside_itself(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages), stages, tmp_path / "out")
    found = parse(page)
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert all(target.startswith("#") for target in found.fetched)
    assert set(found.fetched) <= {f"#{name}" for name in found.ids}
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", page))
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_ids_are_unique_so_that_no_chart_borrows_from_another(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    ids = parse(written(build(stages), stages, tmp_path / "out")).ids
    assert len(ids) == len(set(ids))


def test_names_that_users_give_are_escaped(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages, settings(source=HOSTILE)), stages, tmp_path / "out")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4  # model, text source, warm start, settings


def test_the_page_repeats_the_run(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages), stages, tmp_path / "out")
    assert "adapruner compress -c small.yaml" in page
    spelled = re.findall(r"<code>(parameters:.*?)</code>", page, flags=re.DOTALL)[0]
    values = yaml.safe_load(spelled.replace("&#39;", "'").replace("&#34;", '"'))
    assert parse_section(RunConfig, values["parameters"]["config"], "page") == settings()


def test_colours_follow_the_reader_s_scheme(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages), stages, tmp_path / "out")
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 2 * 6  # speed, widths, layers, search, held out, loss; wide, narrow
    assert not any("#a1000" in drawing for drawing in drawings)
    assert all("var(--" in drawing for drawing in drawings)
    used = set(re.findall(r"var\((--\w+)\)", page))
    assert used == {name for name in used if f"{name}:" in page}


def test_a_long_search_of_a_deep_model_stays_below_a_megabyte(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    stages = write_stages(tmp_path / "stages", layers=80, total=500)
    page = written(build(stages), stages, tmp_path / "out")
    assert len(page.encode()) < 1_000_000


def test_stages_that_were_switched_off_leave_gaps_not_errors(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    write_json(stages["measure_speed"], "speed.json", {})
    for stage, file in (
        ("finetune", "curve.json"),
        ("evaluate_finetuned", "metrics.json"),
        ("filter_calibration_pool", "summary.json"),
    ):
        (stages[stage] / file).unlink()
    report = build(stages, settings(method="none"))
    assert report["metrics"]["finetuned"] is None
    assert "without fine-tuning" in verdict(report)
    assert all(row.cells[2] == "-" for row in rows(report))
    page = written(report, stages, tmp_path / "out")
    assert "the pruned checkpoint is the result" in page


def test_without_fine_tuning_nothing_is_called_fine_tuned(stages: dict[str, Path]) -> None:
    report = build(stages, settings(method="none"))
    assert report["params"]["bytes_finetuned"] is None
    assert all(row.cells[2] == "-" for row in rows(report))
    ppl = next(row for row in rows(report) if row.name == "news_ppl_seq128")
    assert ppl.change == "+177.3 %"


def test_a_run_without_texts_or_tasks_still_has_a_page(stages: dict[str, Path]) -> None:
    for model in ("dense", "pruned", "finetuned"):
        write_json(stages[f"evaluate_{model}"], "metrics.json", {})
    write_json(stages["measure_speed"], "speed.json", {})
    for stage, file in (("measure_speed", "cost.json"), ("compare_behaviour", "behaviour.json")):
        (stages[stage] / file).unlink()
    report = build(stages)
    assert [row.name for row in rows(report)] == ["parameters", "weights on disk"]
    assert "perplexity</span>" not in page_of(report)


def test_the_page_says_what_the_search_added_to_its_warm_starts(stages: dict[str, Path]) -> None:
    assert "number 3, reached 47.50; the best warm start, &lt;script" in page_of(build(stages))
    only = trials(1)
    write_json(stages["search"], "trials.json", only)
    write_json(stages["search"], "summary.json", {"best": only[0], "dense_value": None})
    assert "reached 70.00, which is the warm start fisher-pool." in page_of(build(stages))


def test_the_page_shows_what_each_layer_alone_costs(stages: dict[str, Path]) -> None:
    report = build(stages)
    shown = page_of(report)
    assert "layer 3 without 95%: 0.1" in shown
    assert re.search(r"95\.0\s%\s+removed", shown)
    del report["search"]["layer_losses"]
    assert "What each layer alone costs" not in page_of(report)


def test_the_pool_s_counts_stand_below_their_heads(stages: dict[str, Path]) -> None:
    page = page_of(build(stages))
    table = page[page.index("<h3>Sources</h3>") : page.index("<h3>Splits</h3>")]
    assert re.findall(r'<th scope="col">(\w+)</th>', table) == ["read", "used"]
    assert re.findall(r"<td>(.*?)</td>", table) == ["12", "-", "1,500", "64"]
    assert "content hash cdcdcdcdcdcd…" in table
    assert "<dd>1234567</dd>" in page


@pytest.mark.parametrize(
    ("metric", "less"),
    [
        ("news_ppl_seq128", True),
        ("wikitext_word_perplexity", True),
        ("wikitext_bits_per_byte", True),
        ("truthful_brier_score", True),
        ("rabbits_acc", False),
        ("glossary_exact_match", False),
    ],
)
def test_a_metric_s_name_says_which_way_is_better(metric: str, less: bool) -> None:
    assert lower_is_better(metric) is less


def test_trials_without_a_value_are_left_out_of_the_chart(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    broken = trials(5)
    broken[2] |= {"value": math.inf, "state": "complete"}
    broken[3] |= {"value": None, "state": "fail"}
    write_json(stages["search"], "trials.json", broken)
    report = build(stages)
    assert [t["value"] is None for t in report["search"]["trials"]] == [0, 0, 1, 1, 0]
    page = written(report, stages, tmp_path / "out")
    assert "trial 4: " in page and "trial 3: " not in page


def test_speed_is_judged_only_beyond_the_noise_of_its_repeats(stages: dict[str, Path]) -> None:
    clear = [row for row in rows(build(stages)) if "tokens/s" in row.name]
    assert [(row.change, row.good) for row in clear] == [("1.25x", True)] * 2
    write_json(stages["measure_speed"], "speed.json", speed(104.0))
    report = build(stages)
    assert [row.good for row in rows(report) if "tokens/s" in row.name] == [None, None]
    assert "1.04x (within noise)" in verdict(report)


def test_the_terminal_shows_the_three_models_side_by_side(stages: dict[str, Path]) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(library.table(build(stages)))
    lines = console.export_text().splitlines()
    (ppl,) = (line for line in lines if "news_ppl_seq128" in line)
    assert [word for word in ppl.split() if word[0].isdigit()] == ["22.00", "61.00", "33.00"]
    assert "+50.0 %" in ppl
    (accuracy,) = (line for line in lines if "piqa_acc" in line)
    assert "-5.0 points" in accuracy


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (flops(269_030_016), "269.0 MFLOP"),
        (flops(1.3e13), "13.0 TFLOP"),
        (count(134_515_008), "134.5 M"),
        (count(1_234_000_000), "1.2 B"),
        (count(999), "999"),
        (count(None), "-"),
        (size(538_060_032), "538.1 MB"),
        (size(2_000_000_000), "2.0 GB"),
        (number(22.134), "22.13"),
        (number(61_000.4), "61,000"),
        (number(0.0), "0.000"),
        (number(2e-5), "2.00e-05"),
        (number(True), "True"),
        (duration(0.25), "0.2 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(7440), "2 h 04 min"),
    ],
)
def test_numbers_are_told_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
