"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

SETTING = "Replace one setting of the file; VALUE is YAML. Can be repeated."

home_option = click.option(
    "--home",
    metavar="DIR",
    type=click.Path(path_type=Path),
    envvar="ADAPRUNER_HOME",
    default=Path(".adapruner"),
    help="Folder of the stores and artifacts (default: ADAPRUNER_HOME, else .adapruner).",
)


def config_option(description: str, *, required: bool = True) -> Callable[[Command], Command]:
    """-c FILE, as the parameter `path`."""
    return click.option(
        "-c",
        "--config",
        "path",
        required=required,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=description,
    )


def set_option(description: str) -> Callable[[Command], Command]:
    """--set KEY=VALUE, repeatable, as the parameter `overrides`."""
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=description)


def time_options(command: Command) -> Command:
    """--every and --cron, the times of a schedule; a command needs one of them."""
    every = click.option("--every", metavar="INTERVAL", help="Such as 15m, 6h or 1d.")
    cron = click.option(
        "--cron", metavar="FIELDS", help="The five fields of cron, such as '0 3 * * 1-5'."
    )
    return every(cron(command))
