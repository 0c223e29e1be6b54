"""`adapruner promote` and `adapruner rollback`: a person chooses the champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import home_option
from pipelines.errors import one_line_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


@click.command()
@click.argument("model")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Also a version whose gate did not pass.")
@home_option
@one_line_errors()
def promote(model: str, version: str | None, force: bool, home: Path) -> None:
    """Make VERSION of the registered MODEL its champion; by default its candidate.

    The former champion becomes `previous`.

    Exit codes: 0 done, 2 invalid input.
    """
    from pipelines.recompress import promotion

    decision = promotion.promote(_client(home), model, version, force)
    click.echo(json.dumps(decision))


@click.command()
@click.argument("model")
@home_option
@one_line_errors()
def rollback(model: str, home: Path) -> None:
    """Make the previous champion of the registered MODEL its champion again.

    The champion becomes `previous`, so a second rollback undoes the first.

    Exit codes: 0 done, 2 invalid input.
    """
    from pipelines.recompress import promotion

    decision = promotion.rollback(_client(home), model)
    click.echo(json.dumps(decision))


def _client(home: Path) -> MlflowClient:
    from steps.mlflow_support import tracking

    return tracking.connect_to(tracking.configured_uri(home))
