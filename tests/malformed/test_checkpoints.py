"""Directories of checkpoints: config, generation config, index, tokenizer, safetensors."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from adapruner.config import ModelConfig
from adapruner.models.storage.checkpoint import load_model, load_tokenizer
from adapruner.models.storage.sources import materialize, resolve
from tests.adapruner.conftest import write_tokenizer
from tests.malformed.mutations import (
    ODD,
    WRONG,
    WRONG_JSON,
    as_json,
    with_bytes,
    with_characters,
    with_key,
    with_value,
)
from tests.malformed.outcomes import examples, is_refused
from tests.models import small_model

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def _valid() -> dict[str, bytes]:
    """The files of a small checkpoint, with an index beside its one weight file."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        small_model("llama").save_pretrained(folder)
        write_tokenizer(folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
    names = [name for name in header_of(files[WEIGHTS]) if name != "__metadata__"]
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, WEIGHTS)}
    return files | {INDEX: as_json(index).encode()}


def header_of(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header


FILES = _valid()
JSON_FILES = {name: json.loads(data) for name, data in FILES.items() if name.endswith(".json")}
HEADER = header_of(FILES[WEIGHTS])
TENSORS = FILES[WEIGHTS][8 + int.from_bytes(FILES[WEIGHTS][:8], "little") :]


def load(checkpoint: Path) -> None:
    """A checkpoint is accepted where it loads, computes and makes tokens."""
    model = ModelConfig(source=str(checkpoint))
    with TemporaryDirectory() as out:
        materialize(resolve(model), Path(out))
        tokenizer = load_tokenizer(Path(out))
        tokenizer("w3 w4")
        loaded = load_model(Path(out), model)
        assert loaded(torch.tensor([[3, 4]])).logits.shape[:2] == (1, 2)


def outcome(name: str, content: bytes | str, folder: Path) -> bool:
    """Whether the checkpoint with this content of one file is refused."""
    checkpoint = folder / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    data = content if isinstance(content, bytes) else content.encode()
    for file, valid in (FILES | {name: data}).items():
        (checkpoint / file).write_bytes(valid)
    return is_refused(lambda: load(checkpoint), folder)


def test_the_checkpoint_that_is_changed_is_valid(tmp_path: Path) -> None:
    assert not outcome("config.json", FILES["config.json"], tmp_path)


@example(file=("config.json", FILES["config.json"].decode().replace("silu", "\\ud800")))
@given(
    file=st.sampled_from(sorted(JSON_FILES)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.one_of(
                with_value(JSON_FILES[name], ODD + WRONG + WRONG_JSON),
                with_key(JSON_FILES[name]),
                with_characters(FILES[name].decode()),
                st.binary(max_size=40),
            ),
        )
    )
)
@examples(100)
def test_changed_json_is_refused_or_loads(file: tuple[str, bytes | str], tmp_path: Path) -> None:
    outcome(*file, tmp_path)


def written(header: str | bytes, length: int | None = None) -> bytes:
    """A weight file with this header, and another length of it than it has."""
    data = header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data) if length is None else length) + data + TENSORS


DTYPES = tuple(f'"{dtype}"' for dtype in ("F64", "F16", "F8_E4M3", "I64", "BOOL", "F4", "X", "f32"))
SHAPES = ("[-1]", "[4294967296, 4294967296]", "[0, 32]", "[9007199254740993]", "[1.5]", "[[1]]")
OFFSETS = ("[0, 0]", "[0, 4]", "[4, 0]", "[-4, 0]", "[0, 18446744073709551615]", "[1e3, 2]", "[0]")


@given(
    header=st.one_of(
        with_value(HEADER, ODD + WRONG + WRONG_JSON + DTYPES + SHAPES + OFFSETS),
        with_key(HEADER),
        with_characters(as_json(HEADER)),
    )
)
@examples(60)
def test_changed_headers_of_weights_are_refused_or_load(
    header: bytes | str, tmp_path: Path
) -> None:
    outcome(WEIGHTS, written(header), tmp_path)


@given(data=with_bytes(FILES[WEIGHTS], len(FILES[WEIGHTS]) - len(TENSORS)))
@examples(40)
def test_changed_bytes_of_weights_are_refused_or_load(data: bytes, tmp_path: Path) -> None:
    outcome(WEIGHTS, data, tmp_path)


LENGTHS = (0, 1, 2**31, 2**32, 2**63, 2**64 - 1, len(TENSORS))
TENSOR = "model.norm.weight"
CHANGES: dict[str, Callable[[Any], Any]] = {
    "overlap": lambda entry: entry["data_offsets"].__setitem__(0, entry["data_offsets"][0] - 4),
    "outside": lambda entry: entry["data_offsets"].__setitem__(1, len(TENSORS) + 4),
    "negative shape": lambda entry: entry.update(shape=[-32]),
    "huge shape": lambda entry: entry.update(shape=[2**62, 2**62]),
    "other shape": lambda entry: entry.update(shape=[2, 16]),
    "unknown type": lambda entry: entry.update(dtype="F33"),
    "no type": lambda entry: entry.pop("dtype"),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_header_of_another_length_is_refused(length: int, tmp_path: Path) -> None:
    assert outcome(WEIGHTS, written(json.dumps(HEADER), length), tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_an_entry_that_does_not_fit_is_refused(change: str, tmp_path: Path) -> None:
    header = json.loads(json.dumps(HEADER))
    CHANGES[change](header[TENSOR])
    assert outcome(WEIGHTS, written(json.dumps(header)), tmp_path)


@pytest.mark.parametrize("share", (0.0, 0.5, 0.999))
def test_a_cut_weight_file_is_refused(share: float, tmp_path: Path) -> None:
    assert outcome(WEIGHTS, FILES[WEIGHTS][: int(share * len(FILES[WEIGHTS]))], tmp_path)
