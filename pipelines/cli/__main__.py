"""`python -m pipelines.cli`."""

from __future__ import annotations

from pipelines.cli.main import main

main(prog_name="adapruner")
