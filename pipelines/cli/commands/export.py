"""`adapruner export`: a checkpoint in the format of another runtime."""

from __future__ import annotations

from pathlib import Path

import click

from adapruner.config.export import TENSOR_TYPES
from adapruner.export import FORMATS
from pipelines.errors import one_line_errors


@click.command()
@click.argument("source", metavar="RUN|CHECKPOINT", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(list(FORMATS)), help="The format.")
@click.option(
    "--type",
    "tensor_type",
    type=click.Choice(TENSOR_TYPES),
    help="The type of the tensors, for gguf alone (default: f16).",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The file or directory (default: RUN/exports/NAME, or beside CHECKPOINT).",
)
@one_line_errors()
def export(source: Path, to: str, tensor_type: str | None, output: Path | None) -> None:
    """Write the checkpoint of RUN, a results directory, or CHECKPOINT in another format.

    \b
    gguf    a file for llama.cpp and what is built on it
    decilm  a directory for vLLM, SGLang and MLX

    A checkpoint that the format can't hold exactly is refused. docs/serving.md says which runtime
    loads which layout.

    \b
    Examples:
      adapruner export runs/demo --to gguf --type q8_0
      adapruner export models/my-model --to decilm -o my-model-decilm

    Exit codes: 0 done, 2 invalid input, 1 a failure with its traceback.
    """
    from adapruner.errors import UserError
    from adapruner.export import format_module
    from adapruner.export.export import export as write

    if tensor_type is not None and to != "gguf":
        raise UserError(f"--type {tensor_type}: {to} keeps the checkpoint's type; omit --type")
    source = source.resolve()
    is_run = (source / "checkpoint").is_dir()
    checkpoint = source / "checkpoint" if is_run else source
    module = format_module(to)
    name = module.file_name(source.name, tensor_type or module.DEFAULT_TYPE)
    if output is None:
        output = (source / "exports" if is_run else source.parent) / name
        if is_run:
            output.parent.mkdir(exist_ok=True)
    write(checkpoint, to, tensor_type, output)
    click.echo(output)
