"""Calibration pool: the sources that were read, their domains, and the splits made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapruner.report.format import flat_settings, number
from adapruner.report.results import Report
from adapruner.report.sections.base import Inputs, Section

SHOWN_DIGITS = 12
"""Digits of a hash on the page; report.json has all of them."""


def view(report: Report) -> dict[str, Any] | None:
    """A table for each list of records in the pool's summary, and its other entries as facts."""
    pool = report.get("pool")
    if not pool:
        return None
    tables = {name: value for name, value in pool.items() if _is_table(value)}
    facts = {name: value for name, value in pool.items() if name not in tables}
    return {
        "tables": {name: table(value) for name, value in tables.items()},
        "facts": list(flat_settings(facts)),
    }


def table(records: Any) -> dict[str, Any]:
    """A table of records, a list or a mapping of mappings: `heads` and `rows`.

    A column per number; a row has its name, its other words (shown below the name) and its cells.
    """
    named = records.items() if isinstance(records, Mapping) else ((None, row) for row in records)
    pairs = [(name, dict(row)) for name, row in named]
    heads = list(dict.fromkeys(k for _, row in pairs for k, v in row.items() if _is_number(v)))
    rows = []
    for name, row in pairs:
        words = [_word(k, v) for k, v in row.items() if v is not None and not _is_number(v)]
        first, *rest = words if name is None else (str(name), *words)
        rows.append({"name": first, "words": rest, "cells": [number(row.get(h)) for h in heads]})
    return {"heads": heads, "rows": rows}


def _is_table(value: Any) -> bool:
    records = list(value.values()) if isinstance(value, Mapping) else value
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(record, Mapping) for record in records)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(key: str, value: Any) -> str:
    if re.fullmatch("[0-9a-f]{64}", str(value)):
        return f"{key.replace('_', ' ')} {value[:SHOWN_DIGITS]}…"
    return number(value)


def _pool(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.data.pool import PoolSummary

    return inputs.content("filter_calibration_pool", PoolSummary)


SECTION = Section("pool", "Calibration pool", view, "calibration_pool.html.j2", {"pool": _pool})
