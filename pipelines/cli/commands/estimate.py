"""`adapruner estimate`: what a run will take, before it starts."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SETTING, config_option, home_option, set_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The YAML file of the run.")
@set_option(SETTING)
@home_option
@click.option(
    "--model",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder with the config.json of another model, in place of model.source.",
)
@one_line_errors()
def estimate(path: Path, overrides: tuple[str, ...], home: Path, model: Path | None) -> None:
    """Show the time, memory and disk that each stage of a compression will take.

    FILE is a file of `adapruner compress`. No weights are read: one layer of the model's widths,
    with random weights, is timed on this machine for some seconds. Nothing is written.

    Times are of a run without cached stages on a machine as busy as it is now; zero-shot tasks,
    task margins, gates and texts that the model writes are not included.

    \b
    Examples:
      adapruner estimate -c configs/demo.yaml
      adapruner estimate -c my.yaml --set calibration.pool_size=256
      adapruner estimate -c my.yaml --model configs-of/llama-70b

    Exit codes: 0 done, 2 invalid input, 1 a failure with its traceback.
    """
    from pipelines import config_file

    _, config = config_file.read(path, overrides)

    from pipelines.estimate import show

    show(config, home, model)
