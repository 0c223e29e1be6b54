"""What several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

home_option = click.option(
    "--home",
    metavar="DIR",
    type=click.Path(path_type=Path),
    envvar="ADAPRUNER_HOME",
    default=Path(".adapruner"),
    help="Folder of the stores and artifacts (default: ADAPRUNER_HOME, else .adapruner).",
)


def config_option(told: str, *, required: bool = True) -> Callable[[Command], Command]:
    """-c FILE, as the parameter `path`."""
    return click.option(
        "-c",
        "--config",
        "path",
        required=required,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=told,
    )


def set_option(told: str) -> Callable[[Command], Command]:
    """--set KEY=VALUE, many times, as the parameter `overrides`."""
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=told)


SETTING = "Replace one setting of the file; VALUE is YAML. Can be given many times."
