"""Peak memory of real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig
from adapruner.efficiency.peak_memory import measure_peak_memory
from adapruner.models.storage.checkpoint import size_on_disk
from tests.adapruner.conftest import Workplace

SETTINGS = EvaluationConfig(prompt_tokens=(8, 4), new_tokens=2)


def test_peak_memory_includes_libraries_and_weights(workplace: Workplace) -> None:
    checkpoint = workplace.checkpoint
    first, second = measure_peak_memory((checkpoint, checkpoint), workplace.model, SETTINGS)
    assert first and second and first.of == "process"
    assert first.peak_bytes > first.libraries_bytes + size_on_disk(checkpoint)
    # The second checkpoint is measured in a process that has not seen the first.
    assert second.peak_bytes == pytest.approx(first.peak_bytes, rel=0.05)


def test_a_failed_measurement_is_announced_and_gives_none(
    workplace: Workplace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = (workplace.checkpoint, tmp_path / "absent")
    assert measure_peak_memory(checkpoints, workplace.model, SETTINGS) == [None, None]
    message = capfd.readouterr().err
    assert "peak memory" in message and "absent" in " ".join(message.split())


@pytest.mark.parametrize("setting", ["peak_memory", "speed"])
def test_nothing_is_measured_where_it_is_switched_off(
    setting: str, workplace: Workplace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    off = SETTINGS.model_copy(update={setting: False})
    assert measure_peak_memory([tmp_path / "absent"], workplace.model, off) == [None]
    assert capfd.readouterr().err == ""


STARTS_A_SMALL_PROCESS = """
import subprocess, sys
large = bytearray(2**30)
large[:: 2**12] = b"x" * len(large[:: 2**12])
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
PRINTS_ITS_PEAK = """
import torch
from adapruner.efficiency.peak_memory import peak_since
print(peak_since(0, torch.device("cpu")).peak_bytes)
"""


def test_the_peak_is_not_that_of_the_process_that_started_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS_A_SMALL_PROCESS, PRINTS_ITS_PEAK],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0 < int(done.stdout) < 2**30
