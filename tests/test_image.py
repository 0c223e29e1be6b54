"""The container image: pinned, without root, and installed as the Makefile does."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from dockerfile_parse import DockerfileParser

from tests.test_packaging import MAKEFILE, PACKAGES, PROJECT, ROOT, demo_command


@pytest.fixture(scope="module")
def image() -> list[tuple[str, str]]:
    parser = DockerfileParser(str(ROOT / "Dockerfile"))
    rows = [(row["instruction"], row["value"]) for row in parser.structure]
    return [row for row in rows if row[0] != "COMMENT"]


def values(image: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in image if name == instruction]


def test_the_image_has_one_pinned_base_and_runs_without_root(image: list[tuple[str, str]]) -> None:
    (base,) = values(image, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base)
    (user,) = values(image, "USER")
    assert user not in ("root", "0")
    after = [name for name, _ in image[image.index(("USER", user)) :]]
    assert {"COPY", "RUN", "ENTRYPOINT", "CMD"} <= set(after)


def test_the_image_downloads_only_packages(image: list[tuple[str, str]]) -> None:
    assert not values(image, "ADD")
    runs = " ".join(values(image, "RUN"))
    assert not re.search(r"curl|wget|https?://|sudo|chmod 777", runs)
    assert "--no-install-recommends" in runs


def test_the_image_installs_and_starts_with_the_makefile(image: list[tuple[str, str]]) -> None:
    runs = [command for value in values(image, "RUN") for command in value.split("&&")]
    targets = [shlex.split(run)[1:] for run in runs if shlex.split(run)[0] == "make"]
    assert targets == [["setup", "EXTRAS=${EXTRAS}"]]
    assert not any("pip" in run for run in runs)
    (entrypoint,), (command,) = values(image, "ENTRYPOINT"), values(image, "CMD")
    (folder,) = values(image, "WORKDIR")
    started = json.loads(entrypoint) + json.loads(command)
    assert started == demo_command(f"VENV={folder}/.venv")


def test_zenml_runs_steps_in_the_image_with_its_own_code(image: list[tuple[str, str]]) -> None:
    (folder,), (lines,) = values(image, "WORKDIR"), values(image, "ENV")
    variables = dict(pair.split("=", 1) for pair in shlex.split(lines.replace("\\\n", " ")))
    assert folder == "/app", "ZenML changes to this folder in every step, and creates it"
    assert variables["ZENML_CUSTOM_SOURCE_ROOT"] == folder
    assert variables["PATH"].split(":")[0] == f"{folder}/.venv/bin"
    runs = values(image, "RUN")
    made = next(run for run in runs if "useradd" in run)
    assert "--uid 1000" in made
    assert f"--owner=adapruner --group=adapruner {folder}" in made


def test_the_image_installs_extras_that_exist(image: list[tuple[str, str]]) -> None:
    (default,) = (v.partition("=")[2] for v in values(image, "ARG") if v.startswith("EXTRAS="))
    (every,) = re.findall(r"^ALL_EXTRAS := (.+)$", MAKEFILE, re.M)
    assert {default} <= set(every.split(",")) == set(PROJECT["optional-dependencies"])


def test_the_build_context_has_the_files_that_the_image_needs_and_no_others() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    included = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    needed = {"Makefile", "constraints.txt", "pyproject.toml", "configs", PROJECT["readme"]}
    assert included == needed | set(PROJECT["license-files"]) | set(PACKAGES) - {"tests"}
