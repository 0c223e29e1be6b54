"""When a model is streamed."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import DeviceConfig
from adapruner.models.streamed.choice import load_or_stream, sizes_of
from adapruner.models.streamed.layers import is_streamed
from adapruner.models.streamed.memory import available_memory
from tests.models import small_model, tokens


@contextmanager
def limited(left: int) -> Iterator[None]:
    """Within it, this process may take `left` more bytes of memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.parametrize(("streaming", "expected"), [("auto", False), (True, True), (False, False)])
def test_a_small_model_is_streamed_on_request_alone(
    streaming: Any, expected: bool, tmp_path: Path
) -> None:
    small_model("llama").save_pretrained(tmp_path)
    model = load_or_stream(tmp_path, DeviceConfig(device="cpu", streaming=streaming), "1 read")
    assert is_streamed(model) == expected


def test_sizes_are_those_of_the_model(tmp_path: Path) -> None:
    model = small_model("qwen3-moe")
    model.save_pretrained(tmp_path)
    sizes = sizes_of(tmp_path, model.dtype)
    assert sizes.layers + sizes.others == 4 * model.num_parameters()
    assert sizes.layer == sizes.layers // 4


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_model_that_exceeds_the_limit_of_the_process_is_streamed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model("llama", hidden_size=512, intermediate_size=2048, num_hidden_layers=8)
    model.save_pretrained(tmp_path, max_shard_size="20MB")
    sizes = sizes_of(tmp_path, model.dtype)
    del model
    with limited(sizes.whole - 2**20):
        assert available_memory() < sizes.whole
        chosen = load_or_stream(tmp_path, DeviceConfig(device="cpu"), "2 reads")
        assert is_streamed(chosen)
    said = " ".join(capsys.readouterr().err.split())
    assert "with one layer at a time it needs 0.04 GiB and the activations, and 2 reads" in said
    whole = load_or_stream(tmp_path, DeviceConfig(device="cpu", streaming=False), "2 reads")
    ids = tokens(2, 12).long()
    assert torch.equal(chosen(ids).logits, whole(ids).logits)
