"""GGUF files: counts, types, lengths and tensors changed, or the end missing."""

from __future__ import annotations

import signal
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapruner.config import ModelConfig
from adapruner.models.storage.checkpoint import load_model, load_tokenizer
from adapruner.models.storage.sources import materialize, resolve
from tests.adapruner.export.checkpoints import small
from tests.adapruner.export.gguf_files import exported
from tests.malformed.mutations import with_bytes
from tests.malformed.outcomes import examples, is_refused


def _valid() -> tuple[bytes, int]:
    """A small file, and the size of its header."""
    with TemporaryDirectory() as folder:
        reader = exported(small("llama", num_hidden_layers=1), Path(folder))
        return Path(folder, "out.gguf").read_bytes(), int(reader.data_offset)


VALID, HEADER = _valid()


def load(file: Path) -> None:
    """A file is accepted where its checkpoint loads."""
    model = ModelConfig(source=str(file))
    with TemporaryDirectory() as out:
        materialize(resolve(model), Path(out))
        load_tokenizer(Path(out))
        load_model(Path(out), model)


def outcome(data: bytes, folder: Path) -> bool:
    (folder / "model.gguf").write_bytes(data)
    return is_refused(lambda: load(folder / "model.gguf"), folder)


def test_the_file_that_is_changed_is_valid(tmp_path: Path) -> None:
    assert not outcome(VALID, tmp_path)


@given(data=with_bytes(VALID, HEADER))
@examples(60)
def test_changed_bytes_of_the_header_are_refused_or_load(data: bytes, tmp_path: Path) -> None:
    outcome(data, tmp_path)


def _spots() -> dict[str, int]:
    """Where numbers and texts of the header are, by what they are."""
    fields = ("general.architecture", "llama.block_count", "llama.embedding_length",
              "llama.attention.head_count", "llama.feed_forward_length", "llama.context_length",
              "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens",
              "tokenizer.ggml.merges", "tokenizer.ggml.token_type", "tokenizer.ggml.model",
              "tokenizer.ggml.bos_token_id", "tokenizer.chat_template",
              "token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight")  # fmt: skip
    spots = {"version": 4, "tensors": 8, "fields": 16}
    for name in fields:
        if (at := VALID.find(name.encode())) > 0:
            spots |= {f"length of {name}": at - 8, name: at, f"after {name}": at + len(name)}
            spots |= {f"value of {name}": at + len(name) + 4}
            spots |= {f"count of {name}": at + len(name) + 8, f"end of {name}": at + len(name) + 16}
    return spots


SPOTS = _spots()


@given(
    spot=st.sampled_from(sorted(SPOTS)),
    size=st.sampled_from((1, 4, 8)),
    number=st.sampled_from((0, 1, 2, 3, 7, 8, 9, 12, 13, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
                            2**63, 2**64 - 1)),
)  # fmt: skip
@examples(80)
def test_a_changed_number_or_text_of_the_header_is_refused_or_loads(
    spot: str, size: int, number: int, tmp_path: Path
) -> None:
    at = SPOTS[spot]
    changed = (number % 256**size).to_bytes(size, "little")
    outcome(VALID[:at] + changed + VALID[at + size :], tmp_path)


@given(length=st.integers(0, len(VALID) - 64))
@examples(25)
def test_a_cut_file_is_refused(length: int, tmp_path: Path) -> None:
    assert outcome(VALID[:length], tmp_path)


@given(tensors=st.integers(0, 2**64 - 1), fields=st.integers(0, 2**64 - 1), rest=st.binary())
@examples(40)
def test_a_header_without_a_model_is_refused(
    tensors: int, fields: int, rest: bytes, tmp_path: Path
) -> None:
    assert outcome(b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + rest, tmp_path)


@pytest.mark.parametrize("seconds", (0.01, 0.05, 0.1, 0.15, 0.2))
def test_an_interrupt_while_a_file_is_read_stays_one(seconds: float, tmp_path: Path) -> None:
    """The interrupt comes from a timer, so that it comes anywhere in the libraries."""
    (tmp_path / "model.gguf").write_bytes(VALID)
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with suppress(KeyboardInterrupt):
            while True:
                load(tmp_path / "model.gguf")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
