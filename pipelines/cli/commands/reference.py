"""`adapruner methods` and `adapruner settings`: what a file may hold."""

from __future__ import annotations

import click


@click.command()
@click.option("--markdown", is_flag=True, help="Presets and importance metrics as Markdown tables.")
def methods(markdown: bool) -> None:
    """List the methods that a file may name as `method`, one line each."""
    if markdown:
        from pipelines.settings_reference import methods_reference

        click.echo(methods_reference(), nl=False)
        return
    from adapruner.config import presets

    width = max(map(len, presets()))
    for name, preset in presets().items():
        click.echo(f"{name:<{width}}  {preset.summary}")


@click.command()
def settings() -> None:
    """Print all settings of all files as Markdown: type, default and description of each."""
    from pipelines.settings_reference import settings_reference

    click.echo(settings_reference(), nl=False)
