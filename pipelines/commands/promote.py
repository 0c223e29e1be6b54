"""`adapruner promote` and `adapruner rollback`: a person decides which version is the champion."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from pipelines.commands.options import HOME_HELP

HOME = click.option("--home", metavar="DIR", type=click.Path(path_type=Path), help=HOME_HELP)


@click.command()
@click.argument("model")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Also a version whose gate did not pass.")
@HOME
def promote(model: str, version: str | None, force: bool, home: Path | None) -> None:
    """Make VERSION of the registered MODEL its champion; without VERSION, its candidate.

    The former champion becomes `previous`.

    Exit codes: 0 done, 2 something given can't be used.
    """
    _decide(home, lambda decisions, client: decisions.promote(client, model, version, force))


@click.command()
@click.argument("model")
@HOME
def rollback(model: str, home: Path | None) -> None:
    """Make the previous champion of the registered MODEL its champion again.

    The champion becomes `previous`, so a second rollback undoes the first.

    Exit codes: 0 done, 2 something given can't be used.
    """
    _decide(home, lambda decisions, client: decisions.rollback(client, model))


def _decide(home: Path | None, decision: Any) -> None:
    from pipelines.stack import quiet_libraries

    quiet_libraries()
    from pipelines.failures import one_line_errors

    with one_line_errors():
        from pipelines import promotion
        from steps import tracking

        chosen = home or Path(os.environ.get("ADAPRUNER_HOME") or ".adapruner")
        client = tracking.connect_to(tracking.configured_uri(chosen))
        click.echo(json.dumps(decision(promotion, client)))
