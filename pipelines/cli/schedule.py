"""`adapruner schedule`: passes of `adapruner recompress` at set times, in UTC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.cli.options import config_option, home_option

if TYPE_CHECKING:
    from pipelines.schedules.plan import Plan

Command = TypeVar("Command", bound=Callable[..., Any])

file_option = config_option("The YAML file of `adapruner recompress`.")
name_option = click.option("--name", help="The schedule's name. Default: from FILE's name.")


def time_options(command: Command) -> Command:
    """--every and --cron, of which one is wanted."""
    cron = click.option("--cron", metavar="FIELDS", help="Cron's five, such as '0 3 * * 1-5'.")
    return click.option("--every", metavar="INTERVAL", help="Such as 15m, 6h or 1d.")(cron(command))


@click.group()
def schedule() -> None:
    """Start passes of `adapruner recompress` at set times. All times are UTC.

    On one machine, `install` writes a timer of the user's systemd or lines of the user's crontab.
    For Kubernetes, `manifest` renders a CronJob. `zenml` gives a ZenML stack a schedule.
    """


@schedule.command()
@file_option
@time_options
@name_option
@click.option(
    "--with",
    "scheduler",
    type=click.Choice(["systemd", "crontab"]),
    help="Default: systemd where the user's systemd runs, else crontab.",
)
@click.option(
    "--env-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Lines NAME=value for the pass, such as MLFLOW_TRACKING_URI. Only you may read it.",
)
@home_option
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
def install(
    path: Path,
    every: str | None,
    cron: str | None,
    name: str | None,
    scheduler: str | None,
    env_file: Path | None,
    home: Path,
    dry_run: bool,
) -> None:
    """Make passes over FILE at set times on this machine, replacing a schedule of the same name.

    What is written is shown first. Passes run in the present folder, so that relative paths in FILE
    mean the same as now. A pass that is still running is never joined by a second one.

    \b
    Examples:
      adapruner schedule install -c configs/recompress.yaml --every 15m --dry-run
      adapruner schedule install -c configs/recompress.yaml --cron '0 3 * * 1-5' --env-file my.env
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.schedules import crontab, systemd

        made = _plan(path, every, cron, name, env_file, home)
        if (scheduler or _scheduler()) == "systemd":
            shown = "\n".join(f"{unit}:\n{text}" for unit, text in systemd.files(made).items())
            write, other = systemd.install, crontab.remove
        else:
            shown = f"lines of the crontab:\n{crontab.block(made)}"
            write, other = crontab.install, systemd.remove
        click.echo(shown)
        if dry_run:
            click.echo("Nothing was written.")
            return
        made.home.mkdir(parents=True, exist_ok=True)
        click.echo(write(made))
        if other(made.name):
            click.echo(f"The other scheduler's '{made.name}' was removed: one of them is enough.")


@schedule.command("list")
def list_() -> None:
    """Show the schedules on this machine that `install` made."""
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.schedules import crontab, systemd

        found = [*systemd.installed(), *crontab.installed()]
        for row in found:
            click.echo(f"{row.name}\t{row.where}\t{row.when}\t{row.what}")
        if not found:
            click.echo("No schedule is installed.", err=True)


@schedule.command()
@click.option("-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path))
@name_option
def remove(path: Path | None, name: str | None) -> None:
    """Remove the schedule of FILE, or of --name. A pass that is running goes on."""
    from pipelines.errors import mistake, one_line_errors

    with one_line_errors():
        from pipelines.schedules import crontab, plan, systemd

        if path is None and name is None:
            raise mistake("give -c FILE or --name; `adapruner schedule list` shows names")
        chosen = plan.name_of(path or Path(), name)
        removed = [systemd.remove(chosen), crontab.remove(chosen)]
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
@click.option("--storage", default="50Gi", show_default=True, help="Of stores and artifacts.")
def manifest(
    path: Path, every: str | None, cron: str | None, name: str | None, **place: str
) -> None:
    """Print a CronJob of Kubernetes, with a ConfigMap of FILE and a volume for the stores.

    \b
    Example:
      adapruner schedule manifest -c configs/recompress.yaml --image adapruner:0.1 --every 15m
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.schedules import timetable
        from pipelines.schedules import kubernetes, plan

        when = timetable.read(every, cron)
        chosen = plan.name_of(path, name)
        rendered = kubernetes.manifest(chosen, path, when, kubernetes.Place(**place))
        click.echo(rendered, nl=False)


@schedule.command()
@config_option("The YAML file of `adapruner compress`.")
@time_options
@name_option
def zenml(path: Path, every: str | None, cron: str | None, name: str | None) -> None:
    """Give the active ZenML stack a schedule of the compression in FILE.

    The stack's orchestrator must take schedules: Kubernetes, Kubeflow, Vertex AI and others do, the
    local ones do not. Name the source by alias (models:/NAME@champion): a run whose source is what
    it was finds every step cached.
    """
    from pipelines.stack import quiet_libraries

    quiet_libraries()
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines import config_file
        from pipelines.schedules import timetable
        from pipelines.schedules import plan
        from pipelines.schedules import zenml as zenml_schedule

        when = timetable.read(every, cron)
        chosen = plan.name_of(path, name)
        values, _ = config_file.read(path, ())
        stack = zenml_schedule.schedule(chosen, values, when)
        click.echo(f"The stack '{stack}' runs adapruner-{chosen} at '{when.cron}'.")


def _plan(
    path: Path,
    every: str | None,
    cron: str | None,
    name: str | None,
    env_file: Path | None,
    home: Path,
) -> Plan:
    from pipelines.schedules import timetable
    from pipelines.schedules.passes import recompress_command
    from pipelines.schedules import plan

    plan.check_file(path)
    home = home.absolute()
    return plan.Plan(
        name=plan.name_of(path, name),
        when=timetable.read(every, cron),
        folder=Path.cwd(),
        home=home,
        command=tuple(recompress_command(path, home)),
        environment=plan.check_environment(env_file) if env_file else None,
    )


def _scheduler() -> str:
    from pipelines.errors import mistake
    from pipelines.schedules import crontab, systemd

    if systemd.available():
        return "systemd"
    if crontab.available():
        return "crontab"
    raise mistake(
        "neither the user's systemd nor cron is here; use `adapruner recompress --watch`, or give "
        "--with systemd to write the units for later"
    )
