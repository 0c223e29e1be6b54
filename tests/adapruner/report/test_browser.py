"""The report's page in a real browser, wide and on a phone."""

from __future__ import annotations

import copy
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapruner.report import runs as comparison
from adapruner.report import runs_page as comparison_html
from adapruner.report.files import complete, replace_text
from adapruner.report.page import page
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
SECTIONS = [
    "Quality",
    "Cost",
    "What was cut",
    "Search",
    "Recovery",
    "Examples",
    "Time",
    "Calibration pool",
    "Repeat it",
]
LOOK = """
<!doctype html><pre></pre>%s<script>
const isSeen = e => e.getBoundingClientRect().width > 0 && e.getBoundingClientRect().height > 0
const look = frame => {
  const page = frame.contentDocument, all = selector => [...page.querySelectorAll(selector)]
  return {
    sections: all("section").filter(isSeen).map(s => s.querySelector("h2").innerText),
    charts: all("figure").map(f => [...f.querySelectorAll("svg")].filter(isSeen).length),
    tooWide: [page.documentElement, ...all(".compare, .counts").map(t => t.parentElement)]
      .filter(e => e.scrollWidth > e.clientWidth).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(r => r.name),
  }
}
onload = () => document.querySelector("pre").textContent =
  JSON.stringify([...document.querySelectorAll("iframe")].map(look))
</script>
"""


def looked_at(page: Path, profile: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What the page is like at each width, and all that the browser's console said."""
    frame = '<iframe src="%s" style="width:%dpx;height:900px;border:0"></iframe>'
    outer = page.with_name("look.html")
    outer.write_text(LOOK % "".join(frame % (page.name, width) for width in WIDTHS))
    run = subprocess.run(
        [BROWSER, *OPTIONS, f"--user-data-dir={profile}", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (found,) = re.findall("<pre>(.+?)</pre>", run.stdout)
    return json.loads(html.unescape(found)), re.findall(r".*CONSOLE.*", run.stderr)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")
def test_a_browser_shows_every_section_and_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    stages = write_stages(tmp_path / "stages", layers=32, total=40)
    report = complete(build(stages, settings(limits={"mean_retention": 0.95}), with_tasks=True))
    replace_text(tmp_path / "report.html", page(report))
    views, console = looked_at(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    for view in views:
        assert view["sections"] == SECTIONS
        # Retention, speed, widths, layers, search, held out, loss: of two drawings the one for
        # the width.
        assert view["charts"] == [1] * 7
        assert view["tooWide"] == 0
        assert view["requests"] == []


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")
def test_a_browser_shows_runs_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    report = complete(build(write_stages(tmp_path / "stages"), with_tasks=True))
    other = copy.deepcopy(report)
    other["provenance"]["config"]["seed"] = 8
    compared = comparison.compare([report, other])
    replace_text(tmp_path / "compared.html", comparison_html.page(compared))
    views, console = looked_at(tmp_path / "compared.html", tmp_path / "profile")
    assert console == []
    for view in views:
        titles = ["Results", "Quality against size and speed", "Settings that differ"]
        assert view["sections"] == titles
        assert view["charts"] == [1] * 4
        assert view["tooWide"] == 0
        assert view["requests"] == []
