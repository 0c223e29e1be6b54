"""The interface of a section of the report: its part of report.json and its part of the page.

A section is one module in this folder, with a `Section` that `SECTIONS` lists. Modules of sections
import stage artifacts inside the functions that read them, so that a page is rendered from
report.json without loading torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from adapruner.config import RunConfig
from adapruner.files import Artifact
from adapruner.report.results import Report
from adapruner.report.rows import Row

AnyArtifact = TypeVar("AnyArtifact", bound=Artifact)


@dataclass(frozen=True)
class Inputs:
    """What a report is built from.

    `stages` maps a stage to its directory, `timings_s` to its seconds. `provenance["created"]` is
    the UTC time in ISO form, so a report depends on its inputs alone.
    """

    config: RunConfig
    stages: Mapping[str, Path]
    timings_s: Mapping[str, float]
    provenance: Mapping[str, Any]

    def read(self, stage: str, artifact: type[AnyArtifact]) -> AnyArtifact | None:
        """The artifact of a stage; None where the stage did not run or did not write it."""
        directory = self.stages.get(stage)
        return artifact.read(directory) if directory and artifact.exists(directory) else None

    def content(self, stage: str, artifact: type[Artifact]) -> dict[str, Any] | None:
        """The artifact of a stage as a JSON value; None where there is none."""
        result = self.read(stage, artifact)
        return None if result is None else result.model_dump(mode="json")


Collect = Callable[[Inputs], Any]
View = Callable[[Report], Mapping[str, Any] | None]


def _no_rows(report: Report) -> Sequence[Row]:
    return ()


@dataclass(frozen=True)
class Section:
    """A section of the report.

    - `id`: its anchor on the page. `title`: its heading; the section without one is the header.
    - `view`: the values of its template, computed from report.json; None leaves the section out.
      A report that was built before the section existed lacks its entries: `report.get(name)`.
    - `template`: a file in templates/. The default shows the value `lead`, a sentence, and the
      value `facts`, pairs of a name and a text.
    - `entries`: top-level name in report.json -> the function that reads its value from the stages.
      It returns a JSON value, null for a stage that did not run.
    - `rows`: its rows of the terminal's table.
    """

    id: str
    title: str
    view: View
    template: str = "facts.html.j2"
    entries: Mapping[str, Collect] = field(default_factory=dict)
    rows: Callable[[Report], Sequence[Row]] = _no_rows
