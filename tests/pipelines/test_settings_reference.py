"""The references of settings and methods: complete, and valid Markdown."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from pydantic import Field

from adapruner.config import Section, presets
from adapruner.config.choices import METRIC, table
from pipelines.cli.main import main
from pipelines.settings_reference import (
    FILES,
    methods_reference,
    sections,
    settings_reference,
    undescribed_settings,
)

REFERENCES = {("settings",): settings_reference, ("methods", "--markdown"): methods_reference}


def row_of(setting: str) -> list[str]:
    """The cells of the first row for a setting."""
    (row, *_) = re.findall(rf"^\| `{setting}` \|.*\|$", settings_reference(), re.M)
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


@pytest.mark.parametrize("command", REFERENCES, ids=" ".join)
def test_command_prints_the_reference(command: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, list(command)).output == REFERENCES[command]()


@pytest.mark.parametrize("command", REFERENCES, ids=" ".join)
def test_every_row_has_the_columns_of_its_table(command: tuple[str, ...]) -> None:
    columns = 0
    for line in REFERENCES[command]().splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        columns = columns or cells
        assert cells == columns, line


def test_every_setting_of_every_section_has_a_row() -> None:
    reference = settings_reference()
    for _, kind, _ in FILES:
        for path, section in sections(kind):
            assert not path or f"### `{path}`" in reference
            assert all(f"| `{key}` |" in reference for key in section.model_fields)


def test_row_states_type_default_and_description() -> None:
    _, kind, default, description = row_of("ratio")
    assert (kind, default) == (r"number > 0, \< 1", "`0.2`")
    assert "remove" in description


def test_setting_that_names_an_implementation_lists_the_implementations() -> None:
    choices = row_of("metric")[1]
    assert all(f"`{name}`" in choices for name in table(METRIC))


def test_default_of_a_duration_is_written_as_in_a_file() -> None:
    assert row_of("lock_expiry")[1:3] == ["duration", "`10m`"]


def test_setting_without_a_description_is_reported_by_its_path() -> None:
    class Inner(Section):
        described: int = Field(1, description="a number")
        bare: int = 1

    class Outer(Section):
        inner: Inner = Inner()

    assert undescribed_settings(Outer) == ["inner.bare"]


def test_methods_reference_has_every_preset_and_metric() -> None:
    reference = methods_reference()
    assert all(f"| `{name}` |" in reference for name in [*presets(), *table(METRIC)])
