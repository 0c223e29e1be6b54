"""Repeat it: the settings, the command that repeats the run, all hashes and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from adapruner.report.format import flat_settings
from adapruner.report.results import Report
from adapruner.report.sections.base import Inputs, Section

GROUPS = {
    "hashes": ("hashes", "config_hash", "settings_hash"),
    "versions": ("versions",),
    "sources": ("source", "texts", "seed"),
}
"""Heading -> the entries of the provenance below it; all others are listed last."""

NOT_LISTED = ("config", "created")
"""Entries of the provenance that the page shows elsewhere: the settings, and in the header."""


def view(report: Report) -> dict[str, Any]:
    """The command, the settings as a file, and the provenance by heading."""
    return {
        "command": f"adapruner compress -c {report['name']}.yaml",
        "file": f"{report['name']}.yaml",
        "settings": settings_file(report["provenance"]["config"]),
        "provenance": provenance_groups(report["provenance"]),
    }


def settings_file(config: Mapping[str, Any]) -> str:
    """The settings of a run as the YAML file that `adapruner compress -c` reads."""
    return yaml.safe_dump({"parameters": {"config": config}}, sort_keys=False, allow_unicode=True)


def provenance_groups(provenance: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Heading -> pairs of a name and a text; without empty headings."""
    rest = {key: value for key, value in provenance.items() if key not in NOT_LISTED}
    groups: dict[str, list[tuple[str, str]]] = {}
    for heading, keys in GROUPS.items():
        entries = {key: rest.pop(key) for key in keys if key in rest}
        # The names in the mapping that the heading is named after need no prefix.
        unprefixed = entries.pop(heading) if isinstance(entries.get(heading), Mapping) else {}
        groups[heading] = [*flat_settings(unprefixed), *flat_settings(entries)]
    groups["other"] = list(flat_settings(rest))
    return {heading: facts for heading, facts in groups.items() if facts}


def _provenance(inputs: Inputs) -> dict[str, Any]:
    config = inputs.config
    settings = config.model_dump(mode="json")
    return {"seed": config.seed, "config": settings, **inputs.provenance}


SECTION = Section("repeat", "Repeat it", view, "repeat.html.j2", {"provenance": _provenance})
