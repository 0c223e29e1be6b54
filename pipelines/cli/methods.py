"""`adapruner methods`: the presets that `method:` may name."""

from __future__ import annotations

import click


@click.command()
def methods() -> None:
    """List the methods that a file may name as `method`, one line each."""
    from adapruner.config import presets

    width = max(map(len, presets()))
    for name, preset in presets().items():
        click.echo(f"{name:<{width}}  {preset.summary}")
