"""Files of tensors that are filled through memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapruner.importance.mapped_file import create_file

FILLS_A_DISK = """
import errno, sys
from pathlib import Path
from adapruner.importance.mapped_file import create_file

try:
    create_file(Path(sys.argv[1], "table"), {"wide": (4, 2**20)}, {})
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_what_tensors_are_set_to_is_read_back(tmp_path: Path) -> None:
    shapes = {"a": (3, 5), "none": (0, 4), "b": (7,)}
    file = create_file(tmp_path / "table", shapes, {"rows": [4, 2**40], "empty": []})
    expected = {name: torch.randn(shape) for name, shape in shapes.items()}
    for name, tensor in expected.items():
        assert not file.tensors[name].any()
        file.tensors[name].copy_(tensor)
        file.release()
    file.tensors["a"][1, 2:4] += 1
    expected["a"][1, 2:4] += 1
    read = load_file(tmp_path / "table")
    assert read.pop("rows").tolist() == [4, 2**40]
    assert read.pop("empty").tolist() == []
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(read[name], tensor) and torch.equal(file.tensors[name], tensor)


def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    (tmp_path / "few").mkdir()
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        'mount -t tmpfs -o size=1m none few && exec "$@"',
        "sh",
    ]
    if subprocess.run(
        [*command, "true"], cwd=tmp_path, capture_output=True, check=False
    ).returncode:
        pytest.skip("this system allows no mount namespaces")
    done = subprocess.run(
        [*command, sys.executable, "-c", FILLS_A_DISK, str(tmp_path / "few")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "ENOSPC\n"
