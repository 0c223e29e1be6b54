"""Do the promises that files outside the code make hold: commands, pins, image, licence?"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from adapruner.config.parsing import parse_section
from pipelines import config_file
from pipelines.cli.main import main
from pipelines.recompress.config import Plan

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapruner", "steps", "pipelines", "tests")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
VARIABLES = {"PYTHON", "VENV", "ARGS"}
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # `make test` hands its own options down.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )


def blocks(document: Path, *languages: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.M | re.S)
    return [text for language, text in fenced if language in languages]


def commands(document: Path) -> Iterator[list[str]]:
    """Every command of a document's shell blocks, without settings of the environment."""
    for block in blocks(document, "sh", ""):
        for line in block.splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words


def check_make(words: list[str]) -> None:
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (VARIABLES if is_variable else TARGETS), word


def check_adapruner(words: list[str], copies: dict[str, str]) -> None:
    if words[1:] == ["--help"]:
        assert words[0] in main.commands
        return
    command = main.commands[words[0]]
    rest = words[1:]
    if isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    given = command.make_context(words[0], list(rest)).params
    if given.get("path") is None:
        return
    path = ROOT / copies.get(str(given["path"]), str(given["path"]))
    if "overrides" in given:
        read = config_file.read_comparison if words[0] == "compare" else config_file.read
        read(path, given["overrides"])
    elif words[0] == "recompress":
        with contextlib.chdir(ROOT):
            Plan(path)


def check_zenml(words: list[str]) -> None:
    if words == ["init"]:
        return
    name, option, path = words[2:]
    assert [*words[:2], option] == ["pipeline", "run", "-c"]
    module, _, function = name.rpartition(".")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    config_file.read(ROOT / path, ())


def test_newcomers_get_two_commands_and_contributors_three() -> None:
    assert blocks(ROOT / "README.md", "sh")[0].split("\n") == ["make demo", "make test", ""]
    assert len(list(commands(ROOT / "CONTRIBUTING.md"))) == 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_the_documents_can_be_given(document: Path) -> None:
    copies: dict[str, str] = {}
    for program, *words in commands(document):
        match program:
            case "make":
                check_make(words)
            case "adapruner":
                check_adapruner(words, copies)
            case "zenml":
                check_zenml(words)
            case "cp":
                copies[words[1]] = words[0]
            case _:
                assert program in (".", "docker", "mlflow"), program


def test_settings_shown_in_the_readme_are_understood() -> None:
    values = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())["parameters"]["config"]
    for block in blocks(ROOT / "README.md", "yaml"):
        for section, shown in yaml.safe_load(block).items():
            parse_section(RunConfig, {**values, section: {**values[section], **shown}}, "README.md")


def test_python_shown_in_the_readme_is_about_what_is_installed() -> None:
    shown = "\n".join(blocks(ROOT / "README.md", "python"))
    assert {"adapruner", "mlflow", "transformers"} == imported([ast.parse(shown)])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in chain(PROJECT["dependencies"], *extras)]


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: pinned {version}"
    (embedded,) = re.findall(r"^EMBEDDED := (.+)$", MAKEFILE, re.M)
    assert set(embedded.split()) <= set(pinned)


def test_pins_hold_on_any_machine() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9A-Za-z.!]*", version), f"{name}=={version}"
    assert not {"adapruner", "pip", "setuptools"} & set(pins())


def imported(trees: list[ast.Module]) -> set[str]:
    """Top names of what is imported, at whatever depth, without the standard library."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


def test_what_is_imported_is_declared() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    tops = imported([ast.parse(path.read_text()) for path in files]) - set(PACKAGES)
    homes = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    for top in sorted(tops):
        assert declared & {canonicalize_name(home) for home in homes[top]}, f"{top} is undeclared"


def test_a_wheel_holds_every_file_of_the_library() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    library = ROOT / "adapruner"
    packed = {
        path for glob in setuptools["package-data"]["adapruner"] for path in library.glob(glob)
    }
    others = {p for p in library.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others == packed


def test_it_is_installed_again_only_when_what_to_install_has_changed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    planned = make("-n", "setup", cwd=tmp_path).stdout
    assert "pip install" in planned
    (stamp,) = re.findall(r"^touch (\S+)$", planned, re.M)
    (tmp_path / ".venv").mkdir()
    (tmp_path / stamp).touch()
    os.utime(tmp_path / stamp, (0, 0))
    assert make("-q", "setup", cwd=tmp_path).returncode == 0
    assert "pip install" not in make("-n", "demo", cwd=tmp_path).stdout
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("new==1.0\n")
    assert make("-q", "setup", cwd=tmp_path).returncode == 1


def demo_command(*arguments: str) -> list[str]:
    planned = make("-n", "demo", *arguments).stdout.splitlines()
    (line,) = [line for line in planned if "adapruner compress" in line]
    return shlex.split(line)


def test_demo_takes_an_environment_and_options() -> None:
    command = demo_command("VENV=/opt/venv", "ARGS=--set search.trials=4 --home /data")
    assert command[0] == "/opt/venv/bin/adapruner"
    assert command[-4:] == ["--set", "search.trials=4", "--home", "/data"]


def test_demo_says_at_once_what_it_will_do_and_how_long() -> None:
    planned = make("-n", "demo", "VENV=/nowhere").stdout
    first, _, rest = planned.partition("pip install")
    assert "15 minutes" in first
    assert "adapruner compress" in rest


def test_a_python_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = make("setup", f"VENV={tmp_path}/venv", "PYTHON=python3.11-absent")
    assert ended.returncode != 0
    assert "Python 3.11 is needed" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_ci_gives_the_readmes_commands_in_an_environment_of_its_own() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    planned = subprocess.run(
        [script], env={**os.environ, "MAKEFLAGS": "n"}, capture_output=True, text=True, check=True
    ).stdout
    steps = ["-m venv", "pip install", "/bin/ruff check", "/bin/mypy", "/bin/pytest"]
    found = [planned.index(step) for step in steps]
    assert found == sorted(found)
    assert str(ROOT / ".venv") not in planned


def test_commits_are_checked_as_make_check_does() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [" ".join(hook["entry"].split()[:2]) for hook in repo["hooks"]]
    checks = make("-n", "check").stdout
    assert all(entry in checks for entry in entries)


def test_licence_version_and_changelog_agree() -> None:
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    (version,) = re.findall(
        r'^__version__ = "(.+)"$', (ROOT / "adapruner/__init__.py").read_text(), re.M
    )
    assert version == PROJECT["version"]
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[0] in ("Unreleased", version)
