"""report.html: safe, self-contained, readable in both colour schemes."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from adapruner.report.page import page
from tests.adapruner.report.pages import Page, assert_self_contained
from tests.adapruner.report.reports import build, minimal_report, settings, write_stages
from tests.adapruner.report.searches import HOSTILE


def test_page_requests_nothing_outside_itself(report: dict[str, Any]) -> None:
    html = page(report)
    assert_self_contained(html)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_names_from_users_are_escaped(stages: dict[str, Path]) -> None:
    html = page(build(stages, settings(source=HOSTILE)))
    assert "script" not in Page(html).tags
    escaped = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL).count("&lt;script&gt;")
    assert escaped >= 4, "model, text source, warm start and settings"


def test_charts_use_the_colours_of_the_page(report: dict[str, Any]) -> None:
    html = page(report)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert drawings
    assert not any("#a1000" in drawing for drawing in drawings)
    assert all("var(--" in drawing for drawing in drawings)
    used = set(re.findall(r"var\((--\w+)\)", html))
    assert used == {name for name in used if f"{name}:" in html}


def test_every_chart_has_a_wide_and_a_narrow_drawing(report: dict[str, Any]) -> None:
    for figure in re.findall(r"<figure>(.*?)</figure>", page(report), flags=re.DOTALL):
        assert re.findall(r'<svg class="(\w+)"', figure) == ["wide", "narrow"]


def test_page_of_a_long_search_of_a_deep_model_stays_below_a_megabyte(tmp_path: Path) -> None:
    html = page(build(write_stages(tmp_path / "stages", layers=80, total=500)))
    assert len(html.encode()) < 1_000_000


def test_run_without_texts_tasks_and_speed_has_a_page(tmp_path: Path) -> None:
    html = page(minimal_report(tmp_path))
    assert_self_contained(html)
    assert "perplexity</span>" not in html


def test_rendering_a_page_does_not_load_torch() -> None:
    code = "import sys, adapruner.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rendering_leaves_the_report_as_it_is(report: dict[str, Any]) -> None:
    before = copy.deepcopy(report)
    page(report)
    assert report == before
