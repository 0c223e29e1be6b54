"""`adapruner work`: its options, and the manifest of the documentation."""

from __future__ import annotations

from pathlib import Path

import yaml
from click.testing import CliRunner

from pipelines.cli.commands.work import work

MANIFEST = Path(__file__).parents[4] / "docs" / "kubernetes" / "workers.yaml"


def test_a_duration_that_is_none_is_one_line() -> None:
    result = CliRunner().invoke(work, ["--wait", "soon"])
    assert result.exit_code == 2
    assert result.output == "error: --wait soon: expected a duration, such as 30s, 10m or 2h\n"


def test_manifest_is_a_job_of_workers_that_replaces_evicted_ones() -> None:
    job = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["parallelism"] > 1 and "completions" not in spec
    assert pod["restartPolicy"] == "Never", "a podFailurePolicy needs it"
    rules = {rule["action"] for rule in spec["podFailurePolicy"]["rules"]}
    assert rules == {"FailJob", "Ignore"}
    (container,) = pod["containers"]
    command, *arguments = container["args"]
    assert command == work.name
    params = work.make_context(command, arguments).params
    assert params["storage"].startswith("postgresql+psycopg://") and params["wait"] == "1h"
    assert ":" not in params["storage"].partition("://")[2].partition("@")[0], "no password"
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert params["inputs"] == Path(mounts["data"]["mountPath"])
