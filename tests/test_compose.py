"""compose.yaml: no open ports, no default password, and every volume and config is declared."""

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


def test_nothing_starts_without_a_password_from_the_environment() -> None:
    variables = re.findall(r"\$\{(\w+)(.*?)\}", TEXT)
    assert {name for name, _ in variables} == {"POSTGRES_PASSWORD"}
    assert all(modifier.startswith(":?") for _, modifier in variables)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key or "@" in str(value):
                assert "${POSTGRES_PASSWORD:?" in value, (name, key)
    assert "trust" not in TEXT


def test_ports_are_open_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in SERVICES["postgres"]
    assert not any("network_mode" in service for service in SERVICES.values())


def test_a_service_starts_when_the_services_it_depends_on_are_healthy() -> None:
    for name, service in SERVICES.items():
        for dependency, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}, name
            assert SERVICES[dependency]["healthcheck"]["test"][0] == "CMD"
    assert set(SERVICES["watch"]["depends_on"]) == {"mlflow"}
    assert set(SERVICES["mlflow"]["depends_on"]) == {"postgres"}


def test_volumes_and_configs_are_declared_and_mounted_where_the_image_may_write() -> None:
    dockerfile = DockerfileParser(str(ROOT / "Dockerfile"))
    (mkdir,) = [row["value"] for row in dockerfile.structure if "mkdir" in row["value"]]
    folders = mkdir.partition("mkdir ")[2].split()
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                continue
            used.add(source)
            if service["image"] == "adapruner":
                assert target.removeprefix("/app/") in folders
        assert {row["source"] for row in service.get("configs", [])} <= set(COMPOSE["configs"])
    assert used == set(COMPOSE["volumes"])


def test_images_are_pinned_or_built_from_this_repository() -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert (ROOT / service["build"] / "Dockerfile").is_file()
        else:
            assert re.fullmatch(r"[a-z]+:\d+\.\d+-[a-z]+", service["image"])


@pytest.mark.slow
def test_mlflow_accepts_its_options_and_environment_variables() -> None:
    from mlflow import environment_variables
    from mlflow.cli import cli

    service = SERVICES["mlflow"]
    program, name = service["entrypoint"]
    assert program == "/app/.venv/bin/mlflow"
    parsed = cli.commands[name].make_context(name, list(service["command"])).params
    assert (parsed["host"], parsed["port"]) == ("0.0.0.0", 5000)
    for variable in service["environment"]:
        assert hasattr(environment_variables, variable) or variable == "MLFLOW_BACKEND_STORE_URI"
    assert SERVICES["watch"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "mlflow:5000" in parsed["allowed_hosts"]


def test_the_watching_service_has_time_to_stop_a_pass() -> None:
    from pipelines.schedules.passes import GRACE_SECONDS

    watch = SERVICES["watch"]
    assert watch["command"][:2] == ["recompress", "--watch"]
    assert int(watch["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
