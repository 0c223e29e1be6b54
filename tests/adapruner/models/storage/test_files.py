"""Which files are part of a checkpoint, and that links bring in no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.models.storage.files import checkpoint_files
from adapruner.models.storage.sources import materialize, resolve
from tests.adapruner.conftest import Workplace
from tests.adapruner.models.checkpoints import copy_of

SECRET = '{"password": "of this machine"}'


def test_files_of_other_names_are_no_part_of_a_checkpoint(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory, secret = copy_of(workplace, tmp_path), tmp_path / "secret.json"
    secret.write_text(SECRET)
    (directory / "leak.json").symlink_to(secret)
    (directory / "notes.model").write_text(SECRET)
    out = tmp_path / "out"
    out.mkdir()
    materialize(resolve(ModelConfig(source=str(directory))), out)
    assert not any(SECRET in file.read_text(errors="ignore") for file in out.iterdir())


@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors", "vocab.txt"])
def test_a_link_out_of_the_checkpoint_is_refused(
    name: str, workplace: Workplace, tmp_path: Path
) -> None:
    directory, outside = copy_of(workplace, tmp_path), tmp_path / "outside"
    file = directory / name
    outside.write_bytes(file.read_bytes() if file.exists() else b"secret")
    file.unlink(missing_ok=True)
    file.symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}' is a link to a file outside of the checkpoint"):
        resolve(ModelConfig(source=str(directory)))


def test_a_checkpoint_may_be_a_link_and_have_links_within_itself(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory = copy_of(workplace, tmp_path)
    (directory / "weights").mkdir()
    (directory / "model.safetensors").rename(directory / "weights" / "model.safetensors")
    (directory / "model.safetensors").symlink_to("weights/model.safetensors")
    (tmp_path / "link").symlink_to(directory)
    model = ModelConfig(source=str(tmp_path / "link"))
    assert resolve(model).content_hash == resolve(workplace.model).content_hash


def test_snapshots_of_a_hub_cache_link_to_its_blobs(workplace: Workplace, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(checkpoint_files(workplace.checkpoint)):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    source = resolve(ModelConfig(source=str(snapshot)))
    assert source.content_hash == resolve(workplace.model).content_hash
