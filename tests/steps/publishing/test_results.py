from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.publishing import results
from steps.publishing.results import ModelVersionRecord
from tests.steps.configs import minimal_config

Publish = Callable[[str], Path]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return minimal_config(tmp_path)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report"
    path.mkdir()
    for name in ("report.json", "timing.json"):
        (path / name).write_text("{}")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"w")
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    path = tmp_path / "exports"
    path.mkdir()
    (path / "model-f16.gguf").write_bytes(b"g")
    return path


@pytest.fixture
def publish(config: RunConfig, report: Path, checkpoint: Path, exports: Path) -> Publish:
    """Publishes the results of a run whose model version has this number."""
    return lambda version: results.publish(config, report, checkpoint, exports, record(version))


def record(version: str) -> ModelVersionRecord:
    return ModelVersionRecord(
        name="r",
        version=version,
        alias=None,
        run_id="r0",
        tracking_uri="http://127.0.0.1:5000",
        gate="none",
    )


def published_version(folder: Path) -> str:
    return ModelVersionRecord.read(folder).version


def test_the_record_of_a_version_holds_no_password() -> None:
    client = MlflowClient("http://user:SECRET@127.0.0.1:9")
    version = ModelVersion("m", "3", creation_timestamp=0)
    record = results.record_of(client, version, "candidate", "r0", "passed")
    assert record.tracking_uri == "http://127.0.0.1:9"
    assert (record.name, record.version, record.alias) == ("m", "3", "candidate")


def test_weights_are_linked_and_small_files_are_copied(publish: Publish, checkpoint: Path) -> None:
    target = publish("1")
    published = target / "checkpoint"
    assert (published / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert not (published / "config.json").samefile(checkpoint / "config.json")
    assert published_version(target) == "1"
    assert not (target / "timing.json").exists()


def test_exports_are_beside_the_checkpoint_where_there_are_any(
    publish: Publish, exports: Path
) -> None:
    file = exports / "model-f16.gguf"
    assert (publish("1") / "exports" / file.name).samefile(file)
    file.unlink()
    assert not (publish("2") / "exports").exists()


def test_an_earlier_result_is_replaced_as_a_whole(publish: Publish) -> None:
    target = publish("1")
    (target / "note.txt").write_text("of the earlier run")
    publish("2")
    assert published_version(target) == "2"
    assert not (target / "note.txt").exists()
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_folder_with_other_files_is_not_replaced(config: RunConfig, publish: Publish) -> None:
    target = results.directory_of(config)
    target.mkdir(parents=True)
    results.check_target(config)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=str(target)):
        publish("1")
    assert (target / "thesis.tex").exists()


def test_a_file_in_place_of_the_folder_is_not_replaced(config: RunConfig, publish: Publish) -> None:
    target = results.directory_of(config)
    target.parent.mkdir(parents=True)
    target.write_text("a file")
    with pytest.raises(UserError, match=str(target)):
        publish("1")
    assert target.read_text() == "a file"


def test_a_compression_and_a_comparison_do_not_replace_each_other(
    config: RunConfig,
    publish: Publish,
    report: Path,
    checkpoint: Path,
    exports: Path,
    tmp_path: Path,
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in ("comparison.json", "comparison.md", "timing.json"):
        (files / name).write_text("{}")
    publish("1")
    with pytest.raises(UserError, match=r"no comparison\.json"):
        results.publish_comparison(config, files)
    other = config.model_copy(update={"name": "other"})
    for _ in range(2):
        target = results.publish_comparison(other, files)
        assert {path.name for path in target.iterdir()} == {"comparison.json", "comparison.md"}
    with pytest.raises(UserError, match=r"no report\.json"):
        results.publish(other, report, checkpoint, exports, record("1"))


def test_a_failure_while_files_are_copied_leaves_the_earlier_result(
    config: RunConfig, publish: Publish, report: Path, exports: Path, tmp_path: Path
) -> None:
    target = publish("1")
    with pytest.raises(FileNotFoundError):
        results.publish(config, report, tmp_path / "absent", exports, record("2"))
    assert published_version(target) == "1"
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_failure_between_the_two_renames_restores_the_earlier_result(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = publish("1")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        publish("2")
    assert published_version(target) == "1"
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_an_earlier_result_that_can_not_be_restored_is_not_deleted(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = publish("1")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self == target:
            return rename(self, to)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        publish("2")
    (kept,) = target.parent.rglob(ModelVersionRecord.FILE)
    assert published_version(kept.parent) == "1"


def test_of_two_runs_that_publish_at_the_same_time_the_later_result_remains(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = publish("1")
    rename = Path.rename
    concurrent = ["2"]

    def overtaken(self: Path, to: Path) -> Path:
        if self.name == "new" and concurrent:
            publish(concurrent.pop())
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", overtaken)
    publish("3")
    assert published_version(target) == "3"
    assert (target / "checkpoint" / "model.safetensors").read_bytes() == b"w"
    assert [path.name for path in target.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/no", "/sys/kernel/no/such"])
def test_a_folder_that_can_not_be_written_is_refused_before_the_run(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    config = minimal_config(tmp_path, output_dir=str(tmp_path / place))
    with pytest.raises(UserError, match=r"can't be written .* set another `output_dir`"):
        results.check_target(config)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
