from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from adapruner.errors import UserError
from pipelines.recompress.run import LOCK_FILE, NOT_NOW, run_pass
from tests.pipelines import small


def recompress_file(folder: Path, **changes: object) -> Path:
    content = {**small.config(folder), "models": [{"source": "a", "target": "b"}], **changes}
    path = folder / "recompress.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_second_pass_in_the_same_home_folder_stops_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recompress_file(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    with FileLock(home / LOCK_FILE):
        assert run_pass(path, home) == NOT_NOW
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "stopped"
    assert str(home) in json.loads(line)["reason"]
    assert [file.name for file in home.iterdir()] == [LOCK_FILE]


def test_a_mistake_in_the_file_writes_nothing(tmp_path: Path) -> None:
    path = recompress_file(tmp_path, model=[])
    with pytest.raises(UserError, match="'model'; did you mean 'models'"):
        run_pass(path, tmp_path / "home")
    assert [file.name for file in tmp_path.iterdir()] == ["recompress.yaml"]
