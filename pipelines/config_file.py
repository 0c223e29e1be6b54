"""The YAML file of a run, read strictly: an unknown key is an error, never ignored.

The sections of this project are checked before ZenML's keys, which need ZenML to be imported: most
mistakes are reported at once.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from adapruner.comparison.cells import ComparisonConfig, serving
from adapruner.config import GateConfig, RunConfig
from adapruner.config.parsing import closest, nearest, parse_section
from adapruner.errors import UserError, first_line

GATE = "evaluation.gate"
GATE_EXAMPLE = f"{GATE}.mean_retention=0.95"


MOST_VALUES = 100_000
"""Values in a file, each counted as often as its aliases name it."""


MOST_DEPTH = 100
"""Brackets within brackets; the time that PyYAML takes grows with the square of their number."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, of which plain YAML silently uses the last one, and
    aliases or brackets that make a small file a large or an endless one."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 (PyYAML's name)
        if self.flow_level >= MOST_DEPTH:
            raise yaml.scanner.ScannerError(
                None, None, f"more than {MOST_DEPTH} brackets within each other", self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: yaml.Node, counts: dict[int, int]) -> int:
        """The number of values below a node; `counts` has it by node, 0 for those above."""
        if id(node) not in counts:
            counts[id(node)] = 0
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            nodes = (part for item in parts for part in (item if type(item) is tuple else [item]))
            counts[id(node)] = 1 + sum(self._count(part, counts) for part in nodes)
        if not 0 < counts[id(node)] <= MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"aliases make more than {MOST_VALUES} values", node.start_mark
            )
        return counts[id(node)]

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if any("\ud800" <= character <= "\udfff" for character in str(value)):
            raise yaml.constructor.ConstructorError(
                None, None, "it holds half a character", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is set twice", key_node.start_mark
                )
            if not isinstance(key, list | dict):
                seen.add(key)
        return super().construct_mapping(node, deep)


def read(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], RunConfig]:
    """The whole content of the file with `overrides` applied, and the configuration in it.

    An override is `section.key=value`, with a YAML value. Raises UserError for a file that can't be
    read and for any unknown key, of this project or of ZenML.
    """
    values = load(path)
    config = _parse_config(values, path, overrides)
    _check_zenml_keys(values, str(path))
    return values, config


def read_comparison(
    path: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], RunConfig, ComparisonConfig]:
    """As `read`, with the optional section `parameters.comparison`.

    Overrides of that section are `comparison.key=value`.
    """
    values = load(path)
    parameters = values.get("parameters")
    section = parameters.pop("comparison", None) if isinstance(parameters, dict) else None
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise UserError(
            f"{path}: 'parameters.comparison' is {_kind(section)}; expected a section of settings"
        )
    overrides_of_section = [o for o in overrides if o.strip().startswith("comparison.")]
    for override in overrides_of_section:
        _apply(section, override.strip().removeprefix("comparison."))
    config = _parse_config(values, path, [o for o in overrides if o not in overrides_of_section])
    where = f"{path} with --set" if overrides_of_section else str(path)
    comparison = parse_section(ComparisonConfig, section, where, "comparison")
    serving(config, comparison)  # raises UserError for a candidate that no run could have
    _check_zenml_keys(values, str(path))
    values["parameters"]["comparison"] = section
    return values, config, comparison


def read_gate(report: Mapping[str, Any], path: Path | None, overrides: Sequence[str]) -> GateConfig:
    """The gate in the file at `path`, else that of the run of `report`, with `overrides` applied.

    Raises UserError if neither sets a gate, and for an override of another setting.
    """
    for override in overrides:
        if not override.startswith(f"{GATE}."):
            raise UserError(f"--set {override!r}: expected a limit of the gate, {GATE}.LIMIT=VALUE")
    if path is not None:
        gate = read(path, overrides)[1].evaluation.gate
    else:
        evaluation = report["provenance"]["config"].get("evaluation") or {}
        values: dict[str, Any] = {"evaluation": {"gate": copy.deepcopy(evaluation.get("gate"))}}
        for override in overrides:
            _apply(values, override)
        section = values["evaluation"]["gate"]
        gate = None if section is None else parse_section(GateConfig, section, GATE)
    if gate is None:
        raise UserError(
            f"{path or 'the run'} sets no gate; give -c FILE with {GATE}, or --set {GATE_EXAMPLE}"
        )
    return gate


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError for anything else."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); give a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give a YAML file") from None
    except ValueError as error:  # of the path: a null character
        raise UserError(f"{str(path)!r}: can't be read: {error}; give a YAML file") from None
    values = _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {_kind(values)}; expected `parameters: {{config: ...}}`")
    return values


def config_of(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The sections of the run in the content of a file, at `parameters.config`.

    `where` names the file in messages.
    """
    if "parameters" not in values:
        if {"template", "models"} <= values.keys():
            raise UserError(f"{where}: this is a file for `adapruner recompress`, not of one run")
        for key in values:
            if closest(str(key), ["parameters"], 0.75):
                raise UserError(f"{where}: unknown key '{key}'; did you mean 'parameters'?")
        raise UserError(f"{where}: 'parameters' is missing; it holds `config: ...`")
    parameters = values["parameters"]
    if not isinstance(parameters, dict):
        raise UserError(
            f"{where}: 'parameters' is {_kind(parameters)}; expected `config: ...` in it"
        )
    for key in parameters:
        if key != "config":
            raise UserError(
                f"{where}: unknown key 'parameters.{key}'{nearest(str(key), ['config'])}"
            )
    config = parameters.get("config")
    if not isinstance(config, dict):
        raise UserError(
            f"{where}: 'parameters.config' is {_kind(config)}; expected the sections of a run"
        )
    return config


def _parse_config(values: dict[str, Any], path: Path, overrides: Sequence[str]) -> RunConfig:
    """The configuration in the content of a file, in which `overrides` are set."""
    config = config_of(values, str(path))
    for override in overrides:
        _apply(config, override)
    return parse_section(RunConfig, config, f"{path} with --set" if overrides else str(path))


def _apply(config: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override!r}: expected KEY=VALUE, such as pruning.ratio=0.3")
    value = _parse_yaml(text, f"--set {override!r}")
    section = config
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise UserError(f"--set {override!r}: '{key}' is {_kind(section)}, not a section")
    section[keys[-1]] = value


def _check_zenml_keys(values: dict[str, Any], where: str) -> None:
    """Refuses keys beside `parameters` that ZenML would silently ignore, at every level."""
    values = {key: value for key, value in values.items() if key != "parameters"}
    if not values:
        return
    from zenml.config import DockerSettings, ResourceSettings
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    checks: list[tuple[Any, type[BaseModel], tuple[str, ...]]] = [
        (values, PipelineRunConfiguration, ())
    ]
    settings = values.get("settings")
    if isinstance(settings, dict):
        checks += [
            (settings.get("docker"), DockerSettings, ("settings", "docker")),
            (settings.get("resources"), ResourceSettings, ("settings", "resources")),
        ]
    for section, model, prefix in checks:
        if isinstance(section, dict):
            for path, valid in _unknown_keys(section, model, prefix):
                raise UserError(
                    f"{where}: unknown key '{'.'.join(path)}'{nearest(path[-1], valid)}"
                )


def _unknown_keys(
    values: Mapping[Any, Any], model: type[BaseModel], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The path of each key that is no field of `model`, with the fields there are at its place."""
    for key, value in values.items():
        field = model.model_fields.get(str(key))
        if field is None:
            yield (*path, str(key)), sorted(model.model_fields)
        elif isinstance(value, dict):
            inner, is_table = _model_in(field.annotation)
            rows = value.items() if is_table else [(None, value)]
            for name, row in rows if inner else ():
                below = (*path, str(key), *([str(name)] if is_table else []))
                if isinstance(row, dict):
                    yield from _unknown_keys(row, inner, below)


def _model_in(annotation: Any) -> tuple[Any, bool]:
    """The only model with fields of its own in an annotation, and whether it is a dict's value."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        model, _ = _model_in(arguments[1])
        return model, True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        is_closed = annotation.model_fields and annotation.model_config.get("extra") != "allow"
        return (annotation if is_closed else None), False
    models = [pair for pair in map(_model_in, arguments) if pair[0] is not None]
    return models[0] if len(models) == 1 else (None, False)


def _parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises UserError, also for one that no constructor takes."""
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {_yaml_problem(error)}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: it is nested too deeply") from None
    except Exception as error:  # PyYAML's constructors take `!!int x` or 2001-99-99 as they come
        raise UserError(f"{where}: not valid YAML: {first_line(error)}") from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"not valid YAML: {problem}" + (f" (line {mark.line + 1})" if mark else "")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "empty", str: "a text"}
    return names.get(type(value), f"{value!r}")
