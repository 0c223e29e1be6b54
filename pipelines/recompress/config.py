"""The recompress file: which registered models are compressed, with which settings, into which."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from adapruner.config import RunConfig, SafeName, Section
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError
from adapruner.hashing import hash_json
from pipelines import config_file
from pipelines.durations import parse_duration
from pipelines.recompress.notify import render

NAME_LENGTH = 100
DEFAULT_BODY = '{"text": {{ summary | tojson }}, "event": {{ event | tojson }}}'


def _parse_duration(value: Any) -> Any:
    seconds = parse_duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise ValueError("expected a number with its unit, such as 90s, 30m, 12h or 7d")
    return seconds


Seconds = Annotated[int, BeforeValidator(_parse_duration, json_schema_input_type=str)]
"""A number of seconds, written as a duration such as 30m."""


class Versions(Section):
    """A selection of the versions of a source model; by default all."""

    newest: int | None = Field(None, ge=1, description="number of newest versions")
    alias: str | None = Field(
        None, pattern=r"^[^/:@'`\"\\\s]+$", description="the version with this alias"
    )
    tag: str | None = Field(
        None,
        pattern=r"^[^='`\"\\]+=[^'`\"\\]*$",
        description="KEY=VALUE: the versions with this tag",
    )

    @model_validator(mode="before")
    @classmethod
    def _parse_all(cls, value: Any) -> Any:
        if value == "all":
            return {}
        if not isinstance(value, Mapping):
            raise ValueError("expected all, {newest: N}, {alias: NAME} or {tag: KEY=VALUE}")
        if len(value) > 1:
            raise ValueError("expected one of newest, alias and tag")
        return value


class Entry(Section):
    """A registered model, and the registered model of its compressed versions."""

    source: str = Field(pattern=r"^[^/:@'`\"\\]{1,250}$", description="name of a registered model")
    versions: Versions = Versions()
    target: SafeName = Field(description="registered model of the compressed versions")


class Retry(Section):
    """When a failed version is tried again: after `backoff`, then after twice that, ..."""

    attempts: int = Field(3, ge=1, le=100, description="attempts before a version is given up")
    backoff: Seconds = Field(30 * 60, description="wait after the first failure")


class Promotion(Section):
    """What makes a version the champion of its registered model."""

    metric: str | None = Field(
        None,
        description="a metric of the report, such as wikipedia_ppl_seq128, or mean_retention; "
        "default: no champion",
    )
    direction: Literal["lower", "higher"] = Field(
        "lower", description="whether a lower or a higher value is better"
    )
    min_improvement: float = Field(
        0.0, ge=0, description="minimum improvement, as a share of the champion's value"
    )


class Notify(Section):
    """A request to a URL that an environment variable holds."""

    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable with the URL"
    )
    events: tuple[Literal["promotion", "failure"], ...] = Field(
        ("promotion", "failure"), description="events that a request is sent for"
    )
    body: str = Field(DEFAULT_BODY, description="Jinja2; fields of the event, and `summary`")
    timeout: Seconds = Field(5, description="time limit of the request")

    @field_validator("body")
    @classmethod
    def _check_body(cls, body: str) -> str:
        render(body, {"event": "promoted"})
        return body


class RecompressConfig(Section):
    """All registered models that are compressed with one configuration."""

    template: str | None = Field(None, description="a file for `adapruner compress`")
    parameters: dict[str, Any] | None = Field(None, description="its content, in place of a file")
    models: tuple[Entry, ...] = Field(min_length=1)
    retry: Retry = Retry()
    lock_expiry: Seconds = Field(
        10 * 60, ge=2, description="time without a renewal after which the owner of a lock is dead"
    )
    on_change: Literal["refuse", "compress"] = Field(
        "refuse", description="for a compressed version whose files have changed"
    )
    verify: Literal["fingerprint", "content"] = Field(
        "fingerprint", description="how changed files are detected: by size and time, or by reading"
    )
    promotion: Promotion = Promotion()
    notify: Notify | None = None

    @model_validator(mode="after")
    def _check_template_and_models(self) -> RecompressConfig:
        if (self.template is None) == (self.parameters is None):
            raise ValueError("expected one of `template: FILE` and `parameters: {config: ...}`")
        targets = {entry.target for entry in self.models}
        for entry in self.models:
            if entry.source in targets:
                raise ValueError(
                    f"'{entry.source}' is both a source and a target: compressed versions would "
                    "be compressed again"
                )
        pairs = [(entry.source, entry.target) for entry in self.models]
        if len(set(pairs)) < len(pairs):
            raise ValueError("two entries of `models` have the same source and target")
        return self


class RecompressFile:
    """A recompress file, validated together with the compression that it describes."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a mistake in the file or in the template that it names."""
        self.config = parse_section(RecompressConfig, config_file.load(path), str(path))
        if self.config.template is not None:
            self._where = self.config.template
            self._values, _ = config_file.read(Path(self.config.template), [])
        else:
            self._where = str(path)
            self._values = {"parameters": copy.deepcopy(self.config.parameters)}
        for entry in self.config.models:
            self.run_of(entry, "1")

    def run_of(self, entry: Entry, version: str) -> tuple[dict[str, Any], RunConfig]:
        """The content of a file for `adapruner compress` for one version, and its configuration."""
        values = copy.deepcopy(self._values)
        sections = config_file.config_of(values, self._where)
        for name in ("model", "registry"):
            if not isinstance(sections.get(name, {}), dict):
                raise UserError(
                    f"{self._where}: '{name}' is {sections[name]!r}; expected a section"
                )
        sections["name"] = _run_name(entry, version)
        sections["model"] = {
            **sections.get("model", {}),
            "source": f"models:/{entry.source}/{version}",
            "revision": None,
        }
        # The promotion sets aliases, once a version has passed its gate.
        sections["registry"] = {"name": entry.target, "alias": None}
        return values, parse_section(RunConfig, sections, self._where)


def _run_name(entry: Entry, version: str) -> str:
    source = re.sub(r"[^A-Za-z0-9._-]", "_", entry.source)
    name = f"{entry.target}-from-{source}-{version}"
    if source == entry.source and len(name) <= NAME_LENGTH:
        return name
    suffix = hash_json([entry.source, entry.target, version])[:10]
    return f"{name[: NAME_LENGTH - 11]}-{suffix}"
