"""`adapruner promote` and `adapruner rollback`: a person decides which version is the champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import home_option


@click.command()
@click.argument("model")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Also a version whose gate did not pass.")
@home_option
def promote(model: str, version: str | None, force: bool, home: Path) -> None:
    """Make VERSION of the registered MODEL its champion; without VERSION, its candidate.

    The former champion becomes `previous`.

    Exit codes: 0 done, 2 something given can't be used.
    """
    _decide(home, lambda decisions, client: decisions.promote(client, model, version, force))


@click.command()
@click.argument("model")
@home_option
def rollback(model: str, home: Path) -> None:
    """Make the previous champion of the registered MODEL its champion again.

    The champion becomes `previous`, so a second rollback undoes the first.

    Exit codes: 0 done, 2 something given can't be used.
    """
    _decide(home, lambda decisions, client: decisions.rollback(client, model))


def _decide(home: Path, decision: Any) -> None:
    from pipelines.stack import quiet_libraries

    quiet_libraries()
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.recompress import promotion
        from steps.mlflow_support import tracking

        client = tracking.connect_to(tracking.configured_uri(home))
        click.echo(json.dumps(decision(promotion, client)))
