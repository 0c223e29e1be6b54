"""The whole pipeline on ZenML's Kubeflow orchestrator: `make verify-cluster`.

The real kfp client compiles and submits the pipeline. A stand-in for the API runs its tasks as
isolated processes; they have no volumes, so models and texts are in the bucket, and keys in a
secret of ZenML.
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.place import KUBEFLOW, Place
from tests.cluster.runs import finished, needs_cluster
from tests.pipelines import small

pytestmark = needs_cluster


def test_a_run_ends_with_its_report_at_home(place: Place) -> None:
    pytest.importorskip("kfp", reason="the extra kubeflow is not installed")
    every = small.ALWAYS | small.BEFORE_PRUNING | small.AFTER_PRUNING
    run = finished(place, "compress", KUBEFLOW, len(every))
    assert run.code == 0, run.output
    assert sorted(run.steps) == sorted(every)
    report = json.loads((place.folder / "runs" / KUBEFLOW / "report.json").read_text())
    assert report["metrics"]["pruned"]
