"""Promises of the files outside the code: pins, make targets, CI, licence, changelog."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapruner", "steps", "pipelines", "tests")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # `make test` hands its own options down.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(*extras: str) -> list[Requirement]:
    """The dependencies of the project, with those of some extras."""
    optional = (PROJECT["optional-dependencies"][extra] for extra in extras)
    return [Requirement(line) for line in chain(PROJECT["dependencies"], *optional)]


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in requirements(*PROJECT["optional-dependencies"]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: pinned {version}"
    (embedded,) = re.findall(r"^EMBEDDED := (.+)$", MAKEFILE, re.M)
    assert set(embedded.split()) <= set(pinned)


def test_pins_are_versions_that_every_machine_can_install() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9A-Za-z.!]*", version), f"{name}=={version}"
    assert not {"adapruner", "pip", "setuptools"} & set(pins())


def imported(trees: list[ast.Module]) -> set[str]:
    """Top-level names of all imported modules, without the standard library."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


@pytest.mark.parametrize(
    "packages, extras", [(("adapruner", "steps", "pipelines"), ()), (("tests",), ("dev",))]
)
def test_every_imported_package_is_declared(
    packages: tuple[str, ...], extras: tuple[str, ...]
) -> None:
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    tops = imported([ast.parse(path.read_text()) for path in files]) - set(PACKAGES)
    distributions = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    for top in sorted(tops):
        names = {canonicalize_name(name) for name in distributions[top]}
        assert declared & names, f"{top} is undeclared"


def test_wheel_contains_every_file_of_the_library() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    library = ROOT / "adapruner"
    packed = {
        path for glob in setuptools["package-data"]["adapruner"] for path in library.glob(glob)
    }
    others = {p for p in library.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others == packed


def test_setup_installs_again_only_when_the_requirements_change(tmp_path: Path) -> None:
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


def test_demo_accepts_an_environment_and_options() -> None:
    command = demo_command("VENV=/opt/venv", "ARGS=--set search.trials=4 --home /data")
    assert command[0] == "/opt/venv/bin/adapruner"
    assert command[-4:] == ["--set", "search.trials=4", "--home", "/data"]


def test_demo_announces_itself_before_it_installs_and_runs() -> None:
    planned = make("-n", "demo", "VENV=/nowhere").stdout
    before, _, after = planned.partition("pip install")
    assert "echo" in before
    assert "adapruner compress" not in before
    assert "adapruner compress" in after


def test_missing_python_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    ended = make("setup", f"VENV={tmp_path}/venv", "PYTHON=python3.11-absent")
    assert ended.returncode != 0
    assert "PYTHON=" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_help_describes_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.M)
    shown = make("help").stdout
    assert all(f"make {target}" in shown for target in set(phony.split()) - {"help"})


def test_docs_are_written_by_the_commands_that_print_them() -> None:
    planned = make("-n", "docs").stdout
    for command, page in (("settings", "settings"), ("methods --markdown", "methods")):
        written = rf"adapruner {command} > (\S+) && mv \1 docs/{page}\.md"
        assert re.search(written, planned), "a command that fails leaves the page as it is"


def test_ci_runs_setup_checks_and_tests_in_a_new_environment() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    planned = subprocess.run(
        [script], env={**os.environ, "MAKEFLAGS": "n"}, capture_output=True, text=True, check=True
    ).stdout
    steps = ["-m venv", "pip install", "/bin/ruff check", "/bin/mypy", "/bin/pytest"]
    positions = [planned.index(step) for step in steps]
    assert positions == sorted(positions)
    assert str(ROOT / ".venv") not in planned


def test_commits_are_checked_by_the_commands_of_make_check() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [" ".join(hook["entry"].split()[:2]) for hook in repo["hooks"]]
    checks = make("-n", "check").stdout
    assert all(entry in checks for entry in entries)


def test_console_script_is_the_command_line() -> None:
    (script,) = PROJECT["scripts"].values()
    module, _, function = script.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_licence_version_and_changelog_agree() -> None:
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    (version,) = re.findall(
        r'^__version__ = "(.+)"$', (ROOT / "adapruner/__init__.py").read_text(), re.M
    )
    assert version == PROJECT["version"]
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[0] in ("Unreleased", version)
