"""The cluster that the tests of this folder share, and a run on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.place import (
    IMAGE_FOLDER,
    KUBEFLOW,
    KUBERNETES,
    Place,
    cluster,
    kubeflow_settings,
    kubernetes_settings,
)
from tests.pipelines import small

CHANNELS = 1024
"""Of an MLP: enough that the weights are most of what moves."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert IMAGE_FOLDER is not None
    folder = tmp_path_factory.mktemp("cluster")
    base = subprocess.run(
        [f"{IMAGE_FOLDER}/.venv/bin/python", "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with cluster(folder, Path(IMAGE_FOLDER), base) as made:
        made.volume.mkdir(parents=True)
        small.write_checkpoint(made.volume / "model", seed=0, channels=CHANNELS)
        for path in (made.volume, *made.volume.rglob("*")):
            path.chmod(0o755)  # pods have another user
        small.write_text(folder / "text.txt", seed=0)
        text = made.upload(folder / "text.txt", "texts/text.txt")
        for path in (made.volume / "model").iterdir():
            made.upload(path, f"texts/model/{path.name}")
        for stack, settings, model in (
            (KUBERNETES, kubernetes_settings(), "/data/model"),
            (KUBEFLOW, kubeflow_settings(), "s3://texts/model"),
        ):
            values = small.config(Path("/data"))
            config = values["parameters"]["config"]
            config |= {"name": stack, "registry": {"name": f"small-{stack}"}}
            config["model"]["source"] = model
            config["calibration"]["source"] = text
            config["search"]["storage"] = f"{made.database}/studies"
            (folder / f"{stack}-compress.yaml").write_text(yaml.safe_dump(values | settings))
            config["name"] = "comparison"
            values["parameters"]["comparison"] = {"methods": ["fisher", "flap"]}
            (folder / f"{stack}-compare.yaml").write_text(yaml.safe_dump(values | settings))
        yield made
