from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.recompress.config import RecompressFile
from pipelines.recompress.jobs import CompressionJob, list_jobs, write_done
from pipelines.recompress.source_files import check_source_files, files_changed
from steps.mlflow_support import registered_checkpoints, tracking
from tests.pipelines.recompress.registry import Registry

pytestmark = pytest.mark.slow


def test_replaced_files_are_detected_and_equal_content_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    monkeypatch.setenv("ADAPRUNER_HOME", str(registry.home))
    client = tracking.connect_to(registry.uri)
    version = registry.push("m", seed=0)
    file = RecompressFile(registry.plan("m"))

    def job() -> CompressionJob:
        (listed,) = list_jobs(client, file)
        return listed

    source_hash = registered_checkpoints.content_hash(version)
    tags = {"source_name": "m", "source_version": "1", "source_hash": source_hash}
    tags["settings_hash"] = job().settings
    client.create_registered_model("m-small")
    compressed = client.create_model_version("m-small", "s3://b/c", tags=tags)
    write_done(client, job(), compressed, registered_checkpoints.fingerprint(version))
    assert not files_changed(job())
    assert check_source_files(client, job(), "fingerprint").is_same

    registry.overwrite(version, seed=1)
    assert files_changed(job())
    check = check_source_files(client, job(), "fingerprint")
    assert not check.is_same
    assert check.content == registered_checkpoints.content_hash(version) != source_hash

    registry.overwrite(version, seed=0)
    assert files_changed(job())
    assert check_source_files(client, job(), "fingerprint").is_same
    assert not files_changed(job()), "the record has the present fingerprint"
    assert check_source_files(client, job(), "content").is_same
