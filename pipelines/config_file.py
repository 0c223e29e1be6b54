"""A run's YAML file, read strictly: what is not understood is an error, never ignored."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from adapruner.comparison.cells import ComparisonConfig
from adapruner.config import GateConfig, RunConfig
from adapruner.errors import UserError
from adapruner.config.parsing import nearest, parse_section

GATE = "evaluation.gate"
LIMIT = "mean_retention=0.95"


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            if not isinstance(key, list | dict):
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_comparison(
    path: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], RunConfig, ComparisonConfig]:
    """As `read`, with `parameters.comparison`, which may be missing; `--set` reaches into it by
    `comparison.key=value`.
    """
    values = load(path)
    parameters = values.get("parameters")
    given = parameters.get("comparison") if isinstance(parameters, dict) else None
    table = {} if given is None else given
    if not isinstance(table, dict):
        raise UserError(f"{path}: 'parameters.comparison' is {_kind(table)}; wanted its settings")
    ours = [o for o in overrides if o.split("=")[0].strip().startswith("comparison.")]
    for override in ours:
        _put(table, override.strip().removeprefix("comparison."))
    if isinstance(parameters, dict):
        parameters.pop("comparison", None)
    config = _checked(values, path, [o for o in overrides if o not in ours])
    where = f"{path} with --set" if ours else str(path)
    comparison = parse_section(ComparisonConfig, table, where, "comparison")
    values["parameters"]["comparison"] = table
    return values, config, comparison


def read(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], RunConfig]:
    """The file's whole content with `overrides` put in, and the configuration in it.

    `overrides` are `section.key=value` with a YAML value. Raises UserError for a file that can't
    be read and for any key, in ZenML's part or ours, that nobody would look at.
    """
    values = load(path)
    return values, _checked(values, path, overrides)


def _checked(values: dict[str, Any], path: Path, overrides: Sequence[str]) -> RunConfig:
    """The configuration in a file's content, into which `overrides` are put."""
    others = [key for key in values if key != "parameters"]
    if others:
        _check_zenml_keys({key: values[key] for key in others}, str(path))
    config = config_of(values, str(path))
    for override in overrides:
        _put(config, override)
    return parse_section(RunConfig, config, f"{path} with --set" if overrides else str(path))


def read_gate(report: Mapping[str, Any], path: Path | None, overrides: Sequence[str]) -> GateConfig:
    """The gate to judge a report by: the file's at `path`, else its run's, with `overrides` put in.

    Raises UserError where there is none, and for an override that is not of `evaluation.gate`.
    """
    for override in overrides:
        if not override.startswith(f"{GATE}."):
            raise UserError(f"--set {override!r}: only {GATE}.LIMIT is looked at")
    if path is not None:
        gate = read(path, overrides)[1].evaluation.gate
    else:
        measured = report["provenance"]["config"].get("evaluation") or {}
        values: dict[str, Any] = {"evaluation": {"gate": copy.deepcopy(measured.get("gate"))}}
        for override in overrides:
            _put(values, override)
        found = values["evaluation"]["gate"]
        gate = None if found is None else parse_section(GateConfig, found, GATE)
    if gate is None:
        raise UserError(
            f"{path or 'the run'} sets no gate; give -c FILE with {GATE}, or --set {GATE}.{LIMIT}"
        )
    return gate


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError for anything else."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); give a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give a YAML file") from None
    try:
        values = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_problem(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {_kind(values)}; wanted `parameters: {{config: ...}}`")
    return values


def config_of(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The run's sections in a file's content, at `parameters.config`."""
    if "parameters" not in values:
        raise UserError(f"{where}: 'parameters' is missing; it holds `config: ...`")
    parameters = values["parameters"]
    if not isinstance(parameters, dict):
        raise UserError(f"{where}: 'parameters' is {_kind(parameters)}; wanted `config: ...` in it")
    for key in parameters:
        if key != "config":
            raise UserError(
                f"{where}: unknown key 'parameters.{key}'{nearest(str(key), ['config'])}"
            )
    config = parameters.get("config")
    if not isinstance(config, dict):
        raise UserError(
            f"{where}: 'parameters.config' is {_kind(config)}; wanted the run's sections"
        )
    return config


def _put(config: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override!r}: wanted KEY=VALUE, such as pruning.ratio=0.3")
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: {_yaml_problem(error)}") from None
    section = config
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise UserError(f"--set {override!r}: '{key}' is {_kind(section)}, not a section")
    section[keys[-1]] = value


def _check_zenml_keys(values: dict[str, Any], where: str) -> None:
    """Refuse keys that ZenML would silently ignore, at the top and below where ZenML says more."""
    from zenml.config import DockerSettings, ResourceSettings
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    for path, key, known in _unknown_keys(values, PipelineRunConfiguration, ()):
        shown = ".".join((*path, key))
        raise UserError(f"{where}: unknown key '{shown}'{nearest(key, known)}")
    settings = values.get("settings")
    for name, model in (("docker", DockerSettings), ("resources", ResourceSettings)):
        inner = settings.get(name) if isinstance(settings, dict) else None
        if isinstance(inner, dict):
            for path, key, known in _unknown_keys(inner, model, ("settings", name)):
                shown = ".".join((*path, key))
                raise UserError(f"{where}: unknown key '{shown}'{nearest(key, known)}")


def _unknown_keys(
    values: Mapping[Any, Any], model: type[BaseModel], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    for key, value in values.items():
        field = model.model_fields.get(str(key))
        if field is None:
            yield path, str(key), sorted(model.model_fields)
        elif isinstance(value, dict):
            inner, is_table = _model_in(field.annotation)
            rows = value.items() if is_table else [(None, value)]
            for name, row in rows if inner else ():
                below = (*path, str(key), *([str(name)] if is_table else []))
                if isinstance(row, dict):
                    yield from _unknown_keys(row, inner, below)


def _model_in(annotation: Any) -> tuple[Any, bool]:
    """The one model with fields of its own in an annotation, and whether it is a dict's value."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        model, _ = _model_in(arguments[1])
        return model, True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        closed = annotation.model_fields and annotation.model_config.get("extra") != "allow"
        return (annotation if closed else None), False
    found = [pair for pair in map(_model_in, arguments) if pair[0] is not None]
    return found[0] if len(found) == 1 else (None, False)


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"not valid YAML: {problem}" + (f" (line {mark.line + 1})" if mark else "")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "empty", str: "a text"}
    return names.get(type(value), f"{value!r}")
