"""The pages in a real browser, wide and on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapruner.report.page import page
from adapruner.report.runs import compare_runs
from adapruner.report.runs_page import comparison_page
from adapruner.report.sections import SECTIONS
from tests.adapruner.report.reports import build, settings, write_stages

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--dump-dom",
)
WIDTHS = (390, 1000)
PROBE = """
<!doctype html><pre></pre>%s<script>
const isVisible = e => e.getBoundingClientRect().width > 0 && e.getBoundingClientRect().height > 0
const probe = frame => {
  const page = frame.contentDocument, all = selector => [...page.querySelectorAll(selector)]
  return {
    sections: all("section").filter(isVisible).map(s => s.querySelector("h2").innerText),
    charts: all("figure").map(f => [...f.querySelectorAll("svg")].filter(isVisible).length),
    tooWide: [page.documentElement, ...all(".compare, .counts").map(t => t.parentElement)]
      .filter(e => e.scrollWidth > e.clientWidth).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(r => r.name),
  }
}
onload = () => document.querySelector("pre").textContent =
  JSON.stringify([...document.querySelectorAll("iframe")].map(probe))
</script>
"""


def inspect(html_text: str, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The state of the page at each of WIDTHS, and the messages of the browser's console."""
    (folder / "page.html").write_text(html_text, encoding="utf-8")
    frame = '<iframe src="page.html" style="width:%dpx;height:900px;border:0"></iframe>'
    outer = folder / "probe.html"
    outer.write_text(PROBE % "".join(frame % width for width in WIDTHS))
    run = subprocess.run(
        [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (state,) = re.findall("<pre>(.+?)</pre>", run.stdout)
    return json.loads(html.unescape(state)), re.findall(r".*CONSOLE.*", run.stderr)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")
def test_browser_shows_every_section_and_requests_nothing(tmp_path: Path) -> None:
    stages = write_stages(tmp_path / "stages", layers=32, total=40, tasks=True)
    html_text = page(build(stages, settings(limits={"mean_retention": 0.95})))
    views, console = inspect(html_text, tmp_path)
    assert console == []
    for view in views:
        assert view["sections"] == [section.title for section in SECTIONS if section.title]
        assert view["charts"] == [1] * html_text.count("<figure>"), "one drawing per chart"
        assert view["tooWide"] == 0
        assert view["requests"] == []


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")
def test_browser_shows_runs_side_by_side(three_runs: list[dict[str, Any]], tmp_path: Path) -> None:
    html_text = comparison_page(compare_runs(three_runs))
    views, console = inspect(html_text, tmp_path)
    assert console == []
    for view in views:
        assert len(view["sections"]) == html_text.count("<section")
        assert view["charts"] == [1] * html_text.count("<figure>")
        assert view["tooWide"] == 0
        assert view["requests"] == []
