"""Where every source version of a recompress file stands, read from the registry alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipelines.recompress import lineage
from pipelines.recompress.config import Plan
from steps.mlflow_support import tracking

COLUMNS = ("source", "version", "state", "attempts", "target", "until", "why")


def rows(path: Path, home: Path) -> list[dict[str, Any]]:
    """One row a source version. Raises UserError where file or registry can't be used."""
    plan = Plan(path)
    client = tracking.connect_to(tracking.configured_uri(home))
    return [_row(work, plan) for work in lineage.find(client, plan)]


def show(path: Path, home: Path, as_json: bool) -> None:
    """Print the rows, for people or for programs."""
    found = rows(path, home)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(f"The registry has no version of what {path} names.")
        return
    table = Table(*COLUMNS, title="Times are UTC.", title_justify="left")
    for row in found:
        table.add_row(*(str(row[name] if row[name] is not None else "") for name in COLUMNS))
    Console(highlight=False).print(table)


def _row(work: lineage.Work, plan: Plan) -> dict[str, Any]:
    standing = lineage.stand(work, plan.config.retry, datetime.now(UTC))
    record = work.record
    made = work.made[0] if work.made else None
    return {
        "source": work.entry.source,
        "version": str(work.version.version),
        "state": standing.word,
        "attempts": record.attempts if record else 0,
        "target": f"{made.name}/{made.version}" if made else None,
        "until": standing.until.isoformat(timespec="seconds") if standing.until else None,
        "why": None if standing.word == "done" else standing.reason,
        "since": record.at.isoformat(timespec="seconds") if record else None,
        "promotion": json.loads(made.tags["promotion"])["decision"]
        if made and "promotion" in made.tags
        else None,
    }
