"""`adapruner methods`: the presets that `method:` may name."""

from __future__ import annotations

import click


@click.command()
def methods() -> None:
    """List the methods that a run's file may name as `method`, one line each."""
    from adapruner.methods import METHODS

    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        click.echo(f"{name:<{width}}  {method.summary}")
