from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import DeviceConfig
from adapruner.efficiency import latency_table
from adapruner.errors import UserError
from steps.describe_hardware import describe_hardware


def test_the_step_describes_the_hardware_of_its_own_process(stages_folder: Path) -> None:
    device = DeviceConfig(device="cpu")
    out = describe_hardware.entrypoint(device)
    assert latency_table.Hardware.read(out) == latency_table.describe_hardware(device)


def test_a_missing_device_is_reported(stages_folder: Path) -> None:
    with pytest.raises(UserError, match="cuda:99"):
        describe_hardware.entrypoint(DeviceConfig(device="cuda:99"))
