"""`adapruner status`: the state of every source version, read from the registry alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.errors import printable
from pipelines.log import utc_text
from pipelines.recompress.config import RecompressFile, Retry
from pipelines.recompress.jobs import CompressionJob, list_jobs, status_of
from pipelines.recompress.promotion import TAG
from steps.mlflow_support import tracking

COLUMNS = ("source", "version", "state", "attempts", "target", "until", "why")


def rows(file: RecompressFile, home: Path) -> list[dict[str, Any]]:
    """One row a source version. Raises UserError if the registry does not answer."""
    client = tracking.connect_to(tracking.configured_uri(home))
    return [_row(job, file.config.retry) for job in list_jobs(client, file)]


def print_status(file: RecompressFile, home: Path, as_json: bool) -> None:
    """Prints the rows as a table or as JSON."""
    content = rows(file, home)
    if as_json:
        click.echo(json.dumps(content, indent=2))
        return
    if not content:
        click.echo("The registry has no version that the file selects.")
        return
    table = Table(*COLUMNS, title="Times are UTC.", title_justify="left")
    for row in content:
        table.add_row(*(Text("" if row[n] is None else printable(str(row[n]))) for n in COLUMNS))
    Console(highlight=False).print(table)


def _row(job: CompressionJob, retry: Retry) -> dict[str, Any]:
    status = status_of(job, retry, datetime.now(UTC))
    record = job.record
    compressed = job.compressed[0] if job.compressed else None
    return {
        "source": job.entry.source,
        "version": str(job.version.version),
        "state": status.state,
        "attempts": job.attempts,
        "target": f"{compressed.name}/{compressed.version}" if compressed else None,
        "until": utc_text(status.until) if status.until else None,
        "why": None if status.state == "done" else status.reason,
        "since": utc_text(record.at) if record else None,
        "promotion": _decision_of(compressed) if compressed else None,
    }


def _decision_of(version: ModelVersion) -> str | None:
    """The decision in the tag of a version; None where there is none, or an unreadable one."""
    try:
        return str(json.loads(version.tags[TAG])["decision"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
