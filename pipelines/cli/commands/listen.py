"""`adapruner listen`: passes when MLflow's registry announces a change."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipelines.cli.options import config_option, home_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The YAML file of `adapruner recompress`.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
@click.option(
    "--secret-env",
    required=True,
    metavar="NAME",
    help="The environment variable that holds the webhook's secret.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Accept events of this registered model only. Can be repeated.",
)
@home_option
@one_line_errors()
def listen(
    path: Path, host: str, port: int, secret_env: str, models: tuple[str, ...], home: Path
) -> None:
    """Start a pass of `adapruner recompress` when MLflow's registry sends a webhook.

    MLflow's webhooks (model_version.created, model_version_alias.created and .deleted) go to
    POST /; GET /healthz answers while the service runs. A request is accepted if its HMAC signature
    is valid, it is at most five minutes old and its delivery is new; all others are refused and
    logged. One pass runs at a time, and one more follows for all requests during a pass.

    The service speaks plain HTTP: on a shared network, put a proxy with TLS before it. Name the
    source models with --model, so that the models that a pass registers start no further one.

    \b
    Example:
      adapruner listen -c configs/recompress.yaml --secret-env WEBHOOK_SECRET --model my-model

    Exit codes: 0 ended by SIGTERM or ^C, 2 invalid input.
    """
    from pipelines.schedules.passes import Passes, recompress_command
    from pipelines.schedules.scheduled_pass import check_file
    from pipelines.service import listen as service

    check_file(path)
    secret = service.secret_in(secret_env)
    environment = {key: value for key, value in os.environ.items() if key != secret_env}
    passes = Passes(recompress_command(path, home), environment)
    sys.exit(service.listen(passes, secret, home, host, port, models))
