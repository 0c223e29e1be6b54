"""Repeat it: settings and provenance."""

from __future__ import annotations

import html
import re
from typing import Any

import yaml

from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.report.page import page
from adapruner.report.sections.repeat import provenance_groups, view
from tests.adapruner.report.reports import settings


def test_settings_on_the_page_are_those_of_the_run(report: dict[str, Any]) -> None:
    (text,) = re.findall(r"<code>(parameters:.*?)</code>", page(report), flags=re.DOTALL)
    values = yaml.safe_load(html.unescape(text))
    assert parse_section(RunConfig, values["parameters"]["config"], "page") == settings()


def test_command_names_the_file_of_the_settings(report: dict[str, Any]) -> None:
    values = view(report)
    assert values["command"].endswith(f"-c {values['file']}")


def test_every_entry_of_the_provenance_is_below_a_heading() -> None:
    provenance = {
        "created": "2030",
        "config": {"name": "x"},
        "config_hash": "12",
        "hashes": {"plan": "ab"},
        "source": {"uri": "m", "kind": "directory"},
        "seed": 1234567,
        "note": None,
    }
    assert provenance_groups(provenance) == {
        "hashes": [("plan", "ab"), ("config_hash", "12")],
        "sources": [("source.uri", "m"), ("source.kind", "directory"), ("seed", "1234567")],
        "other": [("note", "-")],
    }
