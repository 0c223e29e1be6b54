from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.data.texts.sources import TextSource, TextSources
from adapruner.files import read_json
from adapruner.models.storage.sources import CheckpointSource
from adapruner.pruning.plan import PruningPlan
from steps.report import report
from steps.zenml_support.workspace import Timing
from tests.adapruner.report.reports import write_stages
from tests.steps.configs import minimal_config

SECONDS = 1.5
OTHER_STAGES = (
    "resolve_source",
    "texts",
    "load_model",
    "estimate_importance",
    "compute_gram_matrices",
    "measure_latency",
    "prune",
    "compute_teacher_logits",
)


@pytest.fixture
def stages(stages_folder: Path) -> dict[str, Path]:
    """The directories of all stages, whose sources are at places of this machine."""
    directories = write_stages(stages_folder / "stages")
    for name in OTHER_STAGES:
        directories[name] = stages_folder / "stages" / name
        directories[name].mkdir()
    (directories["finetune"] / "checkpoint").mkdir()
    for directory in directories.values():
        Timing(seconds=SECONDS).write(directory)
    location = stages_folder / "m"
    source = CheckpointSource(uri="m", kind="directory", location=str(location), content_hash="c0")
    text = TextSource(
        uri="t.txt", kind="text", location=f"{location}.txt", revision=None, content_hash="t0"
    )
    source.write(directories["resolve_source"])
    TextSources(sources={"t.txt": text}).write(directories["texts"])
    return directories


def test_the_report_has_its_files_and_the_seconds_of_every_stage(
    stages: dict[str, Path], stages_folder: Path
) -> None:
    out = report.entrypoint(minimal_config(stages_folder), **stages)
    names = {path.name for path in out.iterdir()}
    assert names == {"report.json", "report.html", "plan.json", "timing.json"}
    assert PruningPlan.read(out) == PruningPlan.read(stages["search"])
    timings = read_json(out / "report.json")["timings_s"]
    assert timings == dict.fromkeys(set(stages) - {"texts"}, SECONDS)


def test_neither_passwords_nor_places_on_this_machine_are_published(
    stages: dict[str, Path], stages_folder: Path
) -> None:
    search = {"storage": "postgresql://u:SECRET@host/s?password=SECRET"}
    config = minimal_config(stages_folder, search=search, output_dir="runs")
    out = report.entrypoint(config, **stages)
    for file in out.iterdir():
        text = file.read_text()
        assert "SECRET" not in text, file.name
        assert str(stages_folder) not in text, file.name
    facts = read_json(out / "report.json")["provenance"]
    assert facts["config"]["search"]["storage"] == "postgresql://host/s"
    assert (facts["source"]["uri"], facts["texts"]["t.txt"]["uri"]) == ("m", "t.txt")


def test_the_config_hash_does_not_depend_on_the_password_of_the_storage(
    stages: dict[str, Path], stages_folder: Path
) -> None:
    hashes = set()
    for login in ("u:SECRET", "u:OTHER"):
        search = {"storage": f"postgresql://{login}@host/s"}
        out = report.entrypoint(minimal_config(stages_folder, search=search), **stages)
        hashes.add(read_json(out / "report.json")["provenance"]["config_hash"])
    assert len(hashes) == 1
