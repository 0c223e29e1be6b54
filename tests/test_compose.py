"""compose.yaml as docker compose would read it: nothing open, no default password, all declared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_every_secret_is_given_by_the_user_or_nothing_starts() -> None:
    given = re.findall(r"\$\{(\w+)(.*?)\}", TEXT)
    assert {name for name, _ in given} == {"POSTGRES_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in given)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key or "@" in str(value):
                assert "${POSTGRES_PASSWORD:?" in value, (name, key)
    assert "trust" not in TEXT


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in SERVICES["postgres"]
    assert not any("network_mode" in service for service in SERVICES.values())


def test_a_service_starts_once_what_it_needs_is_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert SERVICES[needed]["healthcheck"]["test"][0] == "CMD"
    assert set(SERVICES["watch"]["depends_on"]) == {"mlflow"}
    assert set(SERVICES["mlflow"]["depends_on"]) == {"postgres"}


def test_volumes_and_configs_are_declared_and_lie_where_the_image_may_write() -> None:
    dockerfile = DockerfileParser(str(ROOT / "Dockerfile"))
    (made,) = [x["value"] for x in dockerfile.structure if "mkdir" in x["value"]]
    folders = made.partition("mkdir ")[2].split()
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                continue
            used.add(source)
            if service["image"] == "adapruner":
                assert target.removeprefix("/home/adapruner/app/") in folders
        assert {row["source"] for row in service.get("configs", [])} <= set(COMPOSE["configs"])
    assert used == set(COMPOSE["volumes"])


def test_images_are_pinned_or_built_here() -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert (ROOT / service["build"] / "Dockerfile").is_file()
        else:
            assert re.fullmatch(r"[a-z]+:\d+\.\d+-[a-z]+", service["image"])


@pytest.mark.slow
def test_mlflow_takes_the_options_and_variables_that_it_is_given() -> None:
    from mlflow import environment_variables
    from mlflow.cli import cli

    service = SERVICES["mlflow"]
    program, name = service["entrypoint"]
    assert program == "/home/adapruner/app/.venv/bin/mlflow"
    parsed = cli.commands[name].make_context(name, list(service["command"])).params
    assert (parsed["host"], parsed["port"]) == ("0.0.0.0", 5000)
    for variable in service["environment"]:
        assert hasattr(environment_variables, variable) or variable == "MLFLOW_BACKEND_STORE_URI"
    assert SERVICES["watch"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "mlflow:5000" in parsed["allowed_hosts"]
    pause = int(SERVICES["watch"]["stop_grace_period"].removesuffix("s"))
    from pipelines.schedules.passes import GRACE_SECONDS

    assert pause > GRACE_SECONDS


def test_it_watches_the_registry() -> None:
    assert SERVICES["watch"]["command"][:2] == ["recompress", "--watch"]
