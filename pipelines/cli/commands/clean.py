"""`adapruner clean`: remove what nothing needs from the home folder."""

from __future__ import annotations

from pathlib import Path

import click

from adapruner.errors import UserError
from pipelines.cli.options import home_option
from pipelines.errors import one_line_errors


@click.command()
@home_option
@click.option("--older-than", metavar="AGE", default="30d", show_default=True, help="30d, 12h, 0d.")
@click.option("--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@one_line_errors()
def clean(home: Path, older_than: str, dry_run: bool) -> None:
    """Remove leftovers and old results from the home folder.

    What killed processes left goes always: work folders, incomplete copies and results. What is
    older than AGE goes while no other process uses the home: pipeline runs with their artifacts,
    MLflow runs, search studies, downloads, and files in ADAPRUNER_CACHE. A later run computes them
    again where it needs them.

    \b
    Not removed:
      model versions of the registry, with their MLflow runs and files
      results in <output_dir>/<name>/: their weights are hard links or copies
      runs whose results a run that stays has reused
      runs on an MLflow server

    \b
    Examples:
      adapruner clean --dry-run
      adapruner clean --older-than 7d

    Exit codes: 0 done, 2 invalid input or the registry does not answer, 1 a failure with its
    traceback.
    """
    from pipelines.durations import parse_duration

    seconds = parse_duration(older_than)
    if seconds is None:
        raise UserError(
            f"--older-than {older_than}: expected an age of at most 366 days, such as 30d or 12h"
        )
    from pipelines.clean import clean as clean_home

    clean_home(home, seconds, dry_run)
