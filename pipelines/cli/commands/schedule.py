"""`adapruner schedule`: passes of `adapruner recompress` at set times, in UTC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import config_option, home_option, time_options
from pipelines.errors import one_line_errors
from pipelines.schedules import SCHEDULERS, default_scheduler, scheduler
from pipelines.schedules.kubernetes import ACCESS_MODES

if TYPE_CHECKING:
    from pipelines.schedules.scheduled_pass import ScheduledPass

file_option = config_option("The YAML file of `adapruner recompress`.")
name_option = click.option("--name", help="Name of the schedule. Default: the name of FILE.")


@click.group()
def schedule() -> None:
    """Start passes of `adapruner recompress` at set times. All times are UTC.

    On one machine, `install` writes a timer of the user's systemd or lines of the user's crontab.
    For Kubernetes, `manifest` prints a CronJob. `zenml` schedules a compression on a ZenML stack.
    """


@schedule.command()
@file_option
@time_options
@name_option
@click.option(
    "--with",
    "scheduler_name",
    type=click.Choice(list(SCHEDULERS)),
    help="Default: the first of these that runs here.",
)
@click.option(
    "--env-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Lines NAME=value for the pass, such as MLFLOW_TRACKING_URI. Readable by you alone.",
)
@home_option
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@one_line_errors()
def install(
    path: Path,
    every: str | None,
    cron: str | None,
    name: str | None,
    scheduler_name: str | None,
    env_file: Path | None,
    home: Path,
    dry_run: bool,
) -> None:
    """Run passes over FILE at set times on this machine; replaces a schedule of the same name.

    What is written is printed first. Passes run in the current folder, so that relative paths in
    FILE keep their meaning. While a pass is running, no second one starts.

    \b
    Examples:
      adapruner schedule install -c configs/recompress.yaml --every 15m --dry-run
      adapruner schedule install -c configs/recompress.yaml --cron '0 3 * * 1-5' --env-file my.env
    """
    planned = _scheduled_pass(path, every, cron, name, env_file, home)
    chosen = scheduler_name or default_scheduler()
    click.echo(scheduler(chosen).preview(planned))
    if dry_run:
        click.echo("Nothing was written.")
        return
    planned.home.mkdir(parents=True, exist_ok=True)
    click.echo(scheduler(chosen).install(planned))
    for other in SCHEDULERS:
        if other != chosen and scheduler(other).remove(planned.name):
            click.echo(f"The schedule '{planned.name}' of {other} was removed: one is enough.")


@schedule.command("list")
@one_line_errors()
def list_() -> None:
    """Show the schedules on this machine that `install` wrote."""
    schedules = [row for name in SCHEDULERS for row in scheduler(name).installed()]
    for row in schedules:
        click.echo(f"{row.name}\t{row.scheduler}\t{row.when}\t{row.command}")
    if not schedules:
        click.echo("No schedule is installed.", err=True)


@schedule.command()
@click.option("-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path))
@name_option
@one_line_errors()
def remove(path: Path | None, name: str | None) -> None:
    """Remove the schedule of FILE, or of --name. A running pass goes on."""
    from adapruner.errors import UserError
    from pipelines.schedules.scheduled_pass import schedule_name

    if path is None and name is None:
        raise UserError("give -c FILE or --name; `adapruner schedule list` shows names")
    chosen = schedule_name(path or Path(), name)
    removed = [scheduler(other).remove(chosen) for other in SCHEDULERS]
    click.echo(f"Removed '{chosen}'." if any(removed) else f"There is no schedule '{chosen}'.")


@schedule.command()
@file_option
@time_options
@name_option
@click.option("--image", required=True, help="The image of AdaPruner, NAME:TAG or NAME@DIGEST.")
@click.option("--namespace", default="default", show_default=True)
@click.option(
    "--secret",
    default="adapruner",
    show_default=True,
    help="The Secret whose entries become environment variables (MLFLOW_TRACKING_URI, keys).",
)
@click.option("--cpu", default="4", show_default=True)
@click.option("--memory", default="16Gi", show_default=True)
@click.option("--storage", default="50Gi", show_default=True, help="For stores and artifacts.")
@click.option(
    "--access-mode",
    type=click.Choice(ACCESS_MODES),
    default=ACCESS_MODES[0],
    show_default=True,
    help="Of the volume. The default lets one pod use it at a time.",
)
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--node-selector",
    "node_selectors",
    multiple=True,
    metavar="KEY=VALUE",
    help="Label of the nodes to run on. Can be repeated.",
)
@one_line_errors()
def manifest(
    path: Path, every: str | None, cron: str | None, name: str | None, **resources: Any
) -> None:
    """Print a CronJob of Kubernetes, with a ConfigMap of FILE and a volume for the stores.

    \b
    Example:
      adapruner schedule manifest -c configs/recompress.yaml --image adapruner:0.1 --every 15m
      adapruner schedule manifest -c my.yaml --image adapruner:0.1 --every 1d --gpus 1
          --node-selector accelerator=nvidia
    """
    from pipelines.schedules import kubernetes, timetable
    from pipelines.schedules.scheduled_pass import schedule_name

    when = timetable.read(every, cron)
    chosen = schedule_name(path, name)
    objects = kubernetes.manifest(chosen, path, when, kubernetes.Resources(**resources))
    click.echo(objects, nl=False)


@schedule.command()
@config_option("The YAML file of `adapruner compress`.")
@time_options
@name_option
@one_line_errors()
def zenml(path: Path, every: str | None, cron: str | None, name: str | None) -> None:
    """Schedule the compression in FILE on the active ZenML stack.

    The orchestrator of the stack must support schedules: Kubernetes, Kubeflow, Vertex AI and others
    do, the local ones do not. Name the source by an alias (models:/NAME@champion): while the alias
    stays, every step is cached.
    """
    from pipelines import config_file
    from pipelines.schedules import timetable
    from pipelines.schedules import zenml as zenml_schedule
    from pipelines.schedules.scheduled_pass import schedule_name

    when = timetable.read(every, cron)
    chosen = schedule_name(path, name)
    values, _ = config_file.read(path, ())
    stack = zenml_schedule.schedule(chosen, values, when)
    click.echo(f"The stack '{stack}' runs adapruner-{chosen} at '{when.cron}'.")


def _scheduled_pass(
    path: Path,
    every: str | None,
    cron: str | None,
    name: str | None,
    env_file: Path | None,
    home: Path,
) -> ScheduledPass:
    from pipelines.schedules import scheduled_pass, timetable
    from pipelines.schedules.passes import recompress_command

    scheduled_pass.check_file(path)
    home = home.absolute()
    return scheduled_pass.ScheduledPass(
        name=scheduled_pass.schedule_name(path, name),
        when=timetable.read(every, cron),
        folder=Path.cwd(),
        home=home,
        command=tuple(recompress_command(path, home)),
        environment=scheduled_pass.check_environment(env_file) if env_file else None,
    )
