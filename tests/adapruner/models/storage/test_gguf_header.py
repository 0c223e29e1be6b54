"""Crafted and damaged headers are refused before a reader allocates what they announce."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path

import pytest

from adapruner.errors import UserError
from adapruner.models.storage.gguf_header import check_header
from tests.adapruner.export.checkpoints import small
from tests.adapruner.export.gguf_files import exported


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(*fields: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    number = len(fields) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, number) + b"".join(fields)


ARRAY = text(b"a") + struct.pack("<I", 9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("gguf")
    exported(small("llama"), folder)
    return (folder / "out.gguf").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"PK\3\4" + bytes(40),
        header(tensors=2**62),
        header(count=2**62),
        header(text(b"k") + struct.pack("<I", 8) + struct.pack("<Q", 2**63)),
        header(ARRAY + struct.pack("<IQ", 8, 2**50)),
        header(ARRAY + struct.pack("<IQ", 4, 2**61)),
        header(ARRAY + struct.pack("<IQ", 9, 1) * 100),
        header(text(b"k") + struct.pack("<I", 77) + bytes(8)),
        header(tensors=1) + text(b"t") + struct.pack("<I", 2**31) + bytes(40),
    ],
)
def test_a_crafted_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"m\.gguf' is not a readable GGUF model"):
        check_header(tmp_path / "m.gguf")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


def test_a_whole_file_passes_and_a_cut_header_does_not(whole: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(whole)
    check_header(file)
    for size in random.Random(0).sample(range(1000), 50):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError):
            check_header(file)


def test_flipped_bytes_end_in_order(whole: bytes, tmp_path: Path) -> None:
    rng, file = random.Random(0), tmp_path / "m.gguf"
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(4, 3000)] = rng.randrange(256)
        file.write_bytes(content)
        try:
            check_header(file)
        except UserError as error:
            assert "\n" not in str(error)
