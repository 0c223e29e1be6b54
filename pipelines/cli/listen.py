"""`adapruner listen`: passes when MLflow's registry says that something arrived."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipelines.cli.options import config_option, home_option


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
    help="Take events of this registered model only. Can be given many times.",
)
@home_option
def listen(
    path: Path, host: str, port: int, secret_env: str, models: tuple[str, ...], home: Path
) -> None:
    """Start a pass of `adapruner recompress` when MLflow's registry calls.

    MLflow's webhooks (model_version.created, model_version_alias.created and .deleted) go to
    POST /; GET /healthz says that the service runs. A request is believed when its HMAC signature
    is right, it is at most five minutes old and was not seen before; everything else is refused
    and logged. One pass runs at a time, and one more follows for all that arrived meanwhile.

    The service speaks plain HTTP: where others share the network, put a proxy with TLS before it.
    Name the source models with --model, so that what a pass registers starts no further one.

    \b
    Example:
      adapruner listen -c configs/recompress.yaml --secret-env WEBHOOK_SECRET --model my-model

    Exit codes: 0 ended by SIGTERM or ^C, 2 something given can't be used.
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.service import listen as service
        from pipelines.schedules.passes import Passes, recompress_command
        from pipelines.schedules.plan import check_file

        check_file(path)
        secret = service.secret_in(secret_env)
        environment = {key: value for key, value in os.environ.items() if key != secret_env}
        passes = Passes(recompress_command(path, home), environment)
        sys.exit(service.listen(passes, secret, home, host, port, models))
