"""The documents are true: commands parse, links lead somewhere, examples run, settings exist."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel
from safetensors import safe_open

from adapruner.comparison.cells import ComparisonConfig, serving
from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from pipelines import config_file
from pipelines.cli.main import main
from pipelines.recompress.config import RecompressFile
from pipelines.settings_reference import (
    FILES,
    methods_reference,
    settings_reference,
    undescribed_settings,
)
from tests.adapruner.conftest import write_tokenizer
from tests.documents import DOCUMENTS, ROOT, anchors, blocks, commands
from tests.models import small_model

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
VARIABLES = {"PYTHON", "VENV", "ARGS"}
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def check_make(words: list[str]) -> None:
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (VARIABLES if is_variable else TARGETS), word


def check_adapruner(words: list[str], copies: dict[str, str]) -> None:
    """Parses a command, and reads the file that it names; `copies` are files that `cp` makes."""
    if words[1:] == ["--help"]:
        assert words[0] in main.commands
        return
    command: Any = main.commands[words[0]]
    rest = words[1:]
    if isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    params = command.make_context(words[0], list(rest)).params
    if params.get("path") is None:
        return
    path = ROOT / copies.get(str(params["path"]), str(params["path"]))
    with contextlib.chdir(ROOT):
        if words[0] == "compare":
            config_file.read_comparison(path, params["overrides"])
        elif "overrides" in params or command.name == "zenml":
            config_file.read(path, params.get("overrides", ()))
        elif words[0] != "schedule" or command.name != "remove":
            RecompressFile(path)


def check_zenml(words: list[str]) -> None:
    """`zenml KIND register NAME ...` of a component or a stack."""
    from zenml.enums import StackComponentType

    kinds = {kind.value.replace("_", "-") for kind in StackComponentType}
    kind, verb, _, option, _ = words[:5]
    assert verb == "register"
    assert (kind, option) == ("stack", "-o") or (kind in kinds and option == "-f")


def test_newcomers_need_two_commands_and_contributors_three() -> None:
    assert blocks(ROOT / "README.md", "sh")[0].text.splitlines() == ["make demo", "make test"]
    assert len(list(commands(ROOT / "CONTRIBUTING.md"))) == 3


@each_document
def test_commands_of_the_documents_parse(document: Path) -> None:
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


@each_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))


@each_document
def test_settings_in_the_documents_are_valid(document: Path) -> None:
    values = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())["parameters"]["config"]
    for block in blocks(document, "yaml"):
        content = yaml.safe_load(block.text)
        comparison = parse_section(ComparisonConfig, content.pop("comparison", {}), document.name)
        shown = {
            section: {**values.get(section, {}), **settings}
            for section, settings in content.items()
        }
        serving(parse_section(RunConfig, {**values, **shown}, document.name), comparison)


@each_document
def test_names_of_settings_in_the_documents_exist(document: Path) -> None:
    """Inline code such as `pruning.ratio` names a setting of the section `pruning`."""
    sections = {
        name: field.annotation
        for name, field in RunConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    text = document.read_text(encoding="utf-8")
    for section, setting in re.findall(r"`(?:--set )?(\w+)\.(\w+)(?:: [^`]*|=[^`]*)?`", text):
        is_file = setting in ("json", "yaml", "py", "jsonl", "txt", "md", "safetensors", "db")
        if section in sections and not is_file:
            assert setting in sections[section].model_fields, f"{section}.{setting}"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(file: Path) -> None:
    with contextlib.chdir(ROOT):
        if file.name == "recompress.yaml":
            RecompressFile(file)
        else:
            config_file.read_comparison(file, ())


@each_document
def test_python_in_the_documents_imports_what_exists(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@each_document
def test_paths_in_the_documents_exist(document: Path) -> None:
    """Inline code that looks like a path of a package, a test or a configuration."""
    text = document.read_text(encoding="utf-8")
    folders = "adapruner|steps|pipelines|tests|configs|benchmarks|docs"
    for path in re.findall(rf"`((?:{folders})/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path


def test_python_api_example_makes_a_smaller_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (example,) = blocks(ROOT / "docs" / "python-api.md", "python")
    dense = tmp_path / "models" / "my-llama"
    small_model("llama").save_pretrained(dense)
    write_tokenizer(dense)
    (tmp_path / "articles.txt").write_text(" ".join(f"w{3 + i % 90}" for i in range(4 * 128)))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example.text, "docs/python-api.md", "exec"), names)
    widths = {layer.mlp_channels for layer in names["describe_model"](names["model"]).layers}
    assert widths == {len(names["plan"].layers[0].channels())}
    with safe_open(tmp_path / "models/my-llama-small/model.safetensors", "pt") as tensors:
        shape = tensors.get_slice("model.layers.0.mlp.down_proj.weight").get_shape()
    assert shape[1] in widths and shape[1] < 48


def test_table_of_large_models_is_what_its_script_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    document = ROOT / "docs" / "large-models.md"
    (script,) = blocks(document, "python")
    monkeypatch.setitem(sys.modules, "shapes", type(sys)("shapes"))  # where dataclass looks
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(script.text, document.name, "exec"), {"__name__": "shapes"})
    assert printed.getvalue() in document.read_text(encoding="utf-8")


@pytest.mark.parametrize("title, section", [(f[0], f[1]) for f in FILES])
def test_every_setting_has_a_description(title: str, section: type[BaseModel]) -> None:
    assert undescribed_settings(section) == [], title


@pytest.mark.parametrize(
    "name, content", [("settings.md", settings_reference), ("methods.md", methods_reference)]
)
def test_generated_documents_are_fresh(name: str, content: Any) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == content(), "run `make docs`"


def test_artifacts_of_the_architecture_are_those_of_the_code() -> None:
    """Rows of the table: `file`, `class`, `module`, fields."""
    from adapruner.files import Artifact

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.<>/]+)` \| `(\w+)` \| `([\w/]+\.py)` \| (.+) \|$", text, re.M)
    for file, name, path, fields in rows:
        parts = Path(path).with_suffix("").parts
        module = ".".join(parts if parts[0] in ("steps", "pipelines") else ("adapruner", *parts))
        kind = getattr(importlib.import_module(module), name)
        if isinstance(kind, type) and issubclass(kind, Artifact):
            assert file == kind.FILE
            assert all(field in fields for field in kind.model_fields), file
    documented = {file for file, *_ in rows}
    ours = [k for k in Artifact.__subclasses__() if not k.__module__.startswith("tests.")]
    assert {kind.FILE for kind in ours} <= documented
