"""The container image: pinned, without root, and installed as the Makefile does."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from dockerfile_parse import DockerfileParser

from tests.test_packaging import PACKAGES, PROJECT, ROOT, demo_command


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


def test_the_image_fetches_nothing_but_packages(image: list[tuple[str, str]]) -> None:
    assert not values(image, "ADD")
    runs = " ".join(values(image, "RUN"))
    assert not re.search(r"curl|wget|https?://|sudo|chmod 777", runs)
    assert "--no-install-recommends" in runs


def test_the_image_installs_and_runs_what_the_makefile_does(image: list[tuple[str, str]]) -> None:
    runs = [words for value in values(image, "RUN") for words in value.split("&&")]
    made = [shlex.split(run)[1:] for run in runs if shlex.split(run)[0] == "make"]
    assert made == [["setup"]]
    assert not any("pip" in run for run in runs)
    started = [word for name in ("ENTRYPOINT", "CMD") for word in json.loads(*values(image, name))]
    (folder,) = values(image, "WORKDIR")
    assert started == demo_command(f"VENV={folder}/.venv")


def test_the_image_gets_what_it_needs_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    taken = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    needed = {"Makefile", "constraints.txt", "pyproject.toml", "configs", PROJECT["readme"]}
    assert taken == needed | set(PROJECT["license-files"]) | set(PACKAGES) - {"tests"}
