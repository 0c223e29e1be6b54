"""`adapruner settings`: the reference of all settings."""

from __future__ import annotations

import click


@click.command()
def settings() -> None:
    """Print all settings of all files as Markdown: type, default and description of each."""
    from pipelines.settings_reference import settings_reference

    click.echo(settings_reference(), nl=False)
