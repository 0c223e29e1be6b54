"""`adapruner work`: a worker that evaluates trials of a search."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from pipelines.cli.options import home_option
from pipelines.errors import one_line_errors


@click.command()
@click.option(
    "--storage",
    metavar="URL",
    envvar="ADAPRUNER_STORAGE",
    help="The database that the run has as search.storage (default: ADAPRUNER_STORAGE, else the "
    "SQLite database in the home folder).",
)
@click.option(
    "--study", metavar="NAME", help="The study (default: the first that a search leads now)."
)
@click.option(
    "--inputs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the search's inputs are, if not at the run's own paths: the artifact store as it "
    "is mounted here, or a folder with checkpoint, pool, importance, gram_matrices and "
    "objective_tasks.",
)
@click.option(
    "--wait",
    metavar="DURATION",
    default="10m",
    show_default=True,
    help="How long to wait for a search that leads a study, such as 30s, 10m or 2h.",
)
@home_option
@one_line_errors()
def work(
    storage: str | None, study: str | None, inputs: Path | None, wait: str, home: Path
) -> None:
    """Evaluate trials of a search that runs elsewhere, until none is missing.

    The run that searches (`adapruner compress` with search.parallel above 1) chooses the trials and
    evaluates some itself. Any number of workers may join it, at any time, in any place that reaches
    its database and the folders of its artifacts: the plan is the same. docs/workers.md has a
    manifest for Kubernetes.

    SIGTERM gives the trial back. The trial of a worker that is killed is given to another one
    after 30 seconds.

    \b
    Examples:
      adapruner work
      adapruner work --storage postgresql+psycopg://adapruner@db.example.org/studies
      adapruner work --study adapruner-1f0c6a7e2b9d4c35 --inputs /mnt/artifacts --wait 1h

    Exit codes: 0 no trial is missing, 2 invalid input or no search within --wait, 143 ended by
    SIGTERM, 130 by ^C, 1 a failure with its traceback.
    """
    from adapruner.errors import UserError
    from pipelines import home as homes
    from pipelines.durations import parse_duration

    wait_s = parse_duration(wait)
    if wait_s is None:
        raise UserError(f"--wait {wait}: expected a duration, such as 30s, 10m or 2h")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from adapruner.search.parallel.worker import work as run_worker
    from steps.zenml_support.workspace import study_storage

    os.environ["ADAPRUNER_HOME"] = str(home)
    if storage is None:
        with homes.exclusive(home):
            homes.enter(home.absolute())
    count = run_worker(study_storage(storage), study, inputs, wait_s)
    click.echo(f"{count} trials evaluated")


def _stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
