"""`adapruner compare`: methods compared with each other, from a YAML file."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SETTING, config_option, home_option, set_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The YAML file of the comparison, or of a compression.")
@set_option(SETTING)
@home_option
@click.option("--stack", metavar="NAME", help="Run on this stack of your ZenML server, and wait.")
@one_line_errors()
def compare(path: Path, overrides: tuple[str, ...], home: Path, stack: str | None) -> None:
    """Compare methods on the checkpoint, the pool and the test texts that FILE names.

    FILE is a file of `adapruner compress` with a section `parameters.comparison` beside
    `parameters.config`; without it all methods are compared at pruning.ratio. What the methods
    share is computed once. No weights are kept and nothing is registered.

    \b
    comparison.methods   names of `adapruner methods` and of variants; default: all
    comparison.variants  methods of your own: a preset with other settings
    comparison.ratios    shares to remove, such as [0.2, 0.5]
    comparison.layouts   per_layer, uniform
    comparison.at_ratio  settings of pruning for one ratio
    comparison.seeds     for methods that are random; others run once
    comparison.finetune  true: fine-tune every candidate as well

    \b
    Results go to <output_dir>/<name>/:
      comparison.md, comparison.json, comparison.svg, comparison.png

    \b
    Examples:
      adapruner compare -c configs/compare.yaml
      adapruner compare -c configs/compare.yaml --set comparison.methods=[fisher,flap]

    After an interruption, the same command goes on after the last finished candidate.

    With --stack, the run is on a stack of the ZenML server that you are logged in to (Kubernetes,
    Kubeflow), where candidates are computed side by side. See docs/cluster.md.

    Exit codes: 0 done, 1 a failure with its traceback or its log's place, 2 invalid input.
    """
    from pipelines import config_file

    values, config, comparison = config_file.read_comparison(path, overrides)
    if stack is None:
        from pipelines import local_compare

        local_compare.compare(values, config, comparison, home)
    else:
        from pipelines.remote import run

        run.compare(values, config, comparison, stack)
