"""A copy of the project with a small model and a text, where pipelines run in processes.

The copy lets a test edit a file of the library.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.pipelines import small

ROOT = Path(__file__).parents[2]
CACHED = re.compile(r"Using cached version of step `(\w+)`")
RAN = re.compile(r"Step `(\w+)` has finished")


@dataclass
class Result:
    """What a process printed and which steps it ran."""

    code: int
    out: str
    err: str

    @property
    def cached(self) -> set[str]:
        return set(CACHED.findall(self.out + self.err))

    @property
    def ran(self) -> set[str]:
        return set(RAN.findall(self.out + self.err))


@dataclass
class Workplace:
    """The folder of the copy, with the files `run.yaml` and `text.txt`."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def results(self) -> Path:
        return self.folder / "runs" / "small"

    def compress(self, *arguments: str) -> Result:
        return self.python(
            "-m", "pipelines.cli", "compress", "-c", "run.yaml", "--home", "home", *arguments
        )

    def python(self, *arguments: str, **environment: str) -> Result:
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(self.folder),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Result(result.returncode, result.stdout, result.stderr)

    def report(self) -> dict[str, Any]:
        return json.loads((self.results / "report.json").read_text())


def make_workplace(folder: Path, values: dict[str, Any] | None = None) -> Workplace:
    """A workplace in `folder`; `values` is the content of run.yaml, by default `small.config`."""
    for package in ("adapruner", "steps", "pipelines"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    small.write_checkpoint(folder / "model", seed=0)
    small.write_text(folder / "text.txt", seed=0)
    (folder / "run.yaml").write_text(yaml.safe_dump(values or small.config(folder)))
    return Workplace(folder)
