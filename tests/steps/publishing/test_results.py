from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.publishing import results


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "run",
            "model": {"source": "m"},
            "calibration": {"source": "t.txt"},
            "registry": {"name": "r"},
            "output_dir": str(tmp_path / "runs"),
        }
    )


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    report, checkpoint = tmp_path / "report", tmp_path / "checkpoint"
    report.mkdir()
    checkpoint.mkdir()
    (report / "report.json").write_text("{}")
    (report / "timing.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"w")
    (checkpoint / "config.json").write_text("{}")
    return report, checkpoint


def test_weights_are_linked_and_small_files_copied(
    config: RunConfig, made: tuple[Path, Path]
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    inner = target / "checkpoint"
    assert (inner / "model.safetensors").samefile(made[1] / "model.safetensors")
    assert not (inner / "config.json").samefile(made[1] / "config.json")
    assert json.loads((target / "model_version.json").read_text()) == {"version": "1"}
    assert not (target / "timing.json").exists()


def test_an_earlier_result_is_replaced_as_a_whole(
    config: RunConfig, made: tuple[Path, Path]
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    (target / "note.txt").write_text("of the earlier run")
    results.publish(config, *made, {"version": "2"})
    assert not (target / "note.txt").exists()
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_what_is_not_a_result_is_not_replaced(config: RunConfig, made: tuple[Path, Path]) -> None:
    target = results.directory_of(config)
    target.mkdir(parents=True)
    results.check_target(config)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not a run's result"):
        results.publish(config, *made, {})
    assert (target / "thesis.tex").exists()


def test_a_compression_and_a_comparison_do_not_replace_each_other(
    config: RunConfig, made: tuple[Path, Path], tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in ("comparison.json", "comparison.md", "timing.json"):
        (files / name).write_text("{}")
    results.publish(config, *made, {})
    with pytest.raises(UserError, match="of this kind"):
        results.publish_comparison(config, files)
    other = config.model_copy(update={"name": "other"})
    for _ in range(2):
        target = results.publish_comparison(other, files)
        assert {path.name for path in target.iterdir()} == {"comparison.json", "comparison.md"}
    with pytest.raises(UserError, match="of this kind"):
        results.publish(other, *made, {})


def test_a_failure_half_way_leaves_the_earlier_result(
    config: RunConfig, made: tuple[Path, Path], tmp_path: Path
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    with pytest.raises(FileNotFoundError):
        results.publish(config, made[0], tmp_path / "absent", {"version": "2"})
    assert json.loads((target / "model_version.json").read_text()) == {"version": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_failure_between_the_two_renames_puts_the_earlier_result_back(
    config: RunConfig, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"):
        results.publish(config, *made, {"version": "2"})
    assert json.loads((target / "model_version.json").read_text()) == {"version": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_result_that_can_not_be_put_back_is_not_deleted(
    config: RunConfig, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if self == target:
            return rename(self, to)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"):
        results.publish(config, *made, {"version": "2"})
    (kept,) = target.parent.rglob("model_version.json")
    assert json.loads(kept.read_text()) == {"version": "1"}


def test_of_two_runs_that_publish_at_once_the_later_result_stays(
    config: RunConfig, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = results.publish(config, *made, {"version": "1"})
    rename = Path.rename
    others = [{"version": "2"}]

    def overtaken(self: Path, to: Path) -> Path:
        if self.name == "new" and others:
            results.publish(config, *made, others.pop())
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", overtaken)
    results.publish(config, *made, {"version": "3"})
    assert json.loads((target / "model_version.json").read_text()) == {"version": "3"}
    assert (target / "checkpoint" / "model.safetensors").read_bytes() == b"w"
    assert [path.name for path in target.parent.iterdir()] == ["run"]
