"""The report: read from the stages' files, complete as JSON, safe and self-contained as a page."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from adapruner import report as library
from adapruner.config import RunConfig, parse_config
from adapruner.plan import LayerPlan, Params, PruningPlan, Ratio
from adapruner.report_text import count, duration, number, rows, size, verdict

HOSTILE = "<script>alert('x')</script>"
CREATED = "2030-01-02T03:04:05+00:00"
TIMINGS = {"load_model": 31.2, "search": 143.0}
DENSE = {"mlp_channels": 64, "query_heads": 8, "kv_groups": 4}


def settings(method: str = "lora", source: str = "model") -> RunConfig:
    values = {
        "name": "small",
        "seed": 7,
        "model": {"source": source},
        "calibration": {"source": "text.txt"},
        "finetune": {"method": method},
        "registry": {"name": "small-pruned"},
    }
    return parse_config(values, "test")


def write_json(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def plan(layers: int) -> dict[str, Any]:
    whole = LayerPlan(mlp_channels="0-63", query_heads="0-7")
    cut = LayerPlan(mlp_channels="0-29,31,60-63", query_heads="0-3,6-7")
    return PruningPlan(
        model_type="llama",
        layout="per_layer",
        layers=(whole, *[cut] * (layers - 1)),
        dense=(DENSE,) * layers,
        protected=(0,),
        ratio=Ratio(requested=0.2, of="all", achieved_all=0.2003, achieved_blocks=0.31),
        params=Params(dense=1_000_000, pruned=799_700),
        provenance={},
    ).model_dump(mode="json")


def trials(total: int) -> list[dict[str, Any]]:
    values = [40 + 30 / (i + 1) + 11 * (i % 3) for i in range(total)]
    return [
        {
            "number": i,
            "name": {0: "fisher-pool", 1: HOSTILE}.get(i, "trial"),
            "value": value,
            "state": "complete",
            "params": {"alpha_coarse": i / total},
            "best_so_far": min(values[: i + 1]),
        }
        for i, value in enumerate(values)
    ]


def speed(pruned: float) -> dict[str, Any]:
    def figures(rate: float) -> dict[str, Any]:
        rates = {"median": rate, "min": 0.9 * rate, "max": 1.1 * rate}
        return {"batch_1": {"prefill_tokens_per_s": rates, "decode_tokens_per_s": rates}}

    factor = {"batch_1": {"prefill": pruned / 100, "decode": pruned / 100}}
    return {"dense": figures(100.0), "pruned": figures(pruned), "speedup": factor}


def write_stages(root: Path, layers: int = 4, total: int = 6) -> dict[str, Path]:
    metrics = {"dense": (22.0, 0.65), "pruned": (61.0, 0.5), "finetuned": (33.0, 0.6)}
    for model, (ppl, accuracy) in metrics.items():
        values = {"news_ppl_seq128": ppl, "piqa_acc": accuracy}
        write_json(root / f"evaluate_{model}", "metrics.json", values)
    write_json(root / "filter_calibration_pool", "summary.json", {"splits": {"test": {"read": 9}}})
    write_json(root / "search", "plan.json", plan(layers))
    write_json(root / "search", "trials.json", trials(total))
    write_json(root / "search", "summary.json", {"best": trials(total)[-1], "dense_value": 21.5})
    curve = [{"step": i + 1, "loss": 3 + math.exp(-i)} for i in range(20)]
    write_json(root / "finetune", "curve.json", curve)
    write_json(root / "measure_speed", "speed.json", speed(125.0))
    for stage, length in (("load_model", 4000), ("prune", 3200)):
        (root / stage).mkdir()
        (root / stage / "model.safetensors").write_bytes(bytes(length))
    return {path.name: path for path in root.iterdir()}


def build(stages: dict[str, Path], config: RunConfig | None = None) -> dict[str, Any]:
    facts = {"created": CREATED, "hashes": {"plan": "ab" * 32}}
    return library.build_report(config or settings(), stages, TIMINGS, facts)


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
    assert (params["bytes_dense"], params["bytes_pruned"]) == (4000, 3200)
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
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_the_page_repeats_the_run(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages), stages, tmp_path / "out")
    assert "adapruner compress -c small.yaml" in page
    spelled = re.findall(r"<code>(parameters:.*?)</code>", page, flags=re.DOTALL)[0]
    values = yaml.safe_load(spelled.replace("&#39;", "'").replace("&#34;", '"'))
    assert parse_config(values["parameters"]["config"], "page") == settings()


def test_colours_follow_the_reader_s_scheme(stages: dict[str, Path], tmp_path: Path) -> None:
    page = written(build(stages), stages, tmp_path / "out")
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 2 * 5  # search, three kinds of structure, loss; wide and narrow
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
    assert rows(report)[0].cells[2] == "-"
    page = written(report, stages, tmp_path / "out")
    assert "the pruned checkpoint is the result" in page


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
