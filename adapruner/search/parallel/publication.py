"""What a worker needs of a search, as an attribute of its study: settings, inputs, versions."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Self

import optuna

from adapruner.config import PlanConfig
from adapruner.dependencies import source_files
from adapruner.errors import UserError
from adapruner.files import Record
from adapruner.hashing import hash_directory, hash_file, hash_json
from adapruner.models.storage import checkpoint as ckpt
from adapruner.search.inputs import SearchInputs

KEY = "published"
PACKAGES = ("adapruner", "torch", "transformers", "optuna")
"""Packages that a worker has in the version of the lead."""


class Folder(Record):
    """A directory where the lead has it, and the sha256 of its content."""

    path: str
    sha256: str


class Publication(Record):
    """The settings, the inputs by name, and the lead's machine, devices and versions."""

    config: PlanConfig
    inputs: dict[str, Folder]
    machine: str
    precision: str
    versions: dict[str, str]

    @classmethod
    def of(cls, study: optuna.Study) -> Self | None:
        """What the lead has published; None before it has."""
        value = study.user_attrs.get(KEY)
        return None if value is None else cls.model_validate(value)

    def check_process(self) -> None:
        """Raises UserError where a trial could have another result here than at the lead."""
        here = _versions()
        for name, wanted in self.versions.items():
            if here[name] != wanted:
                raise UserError(
                    f"the search runs {name} {wanted}, this worker {here[name]}: install the same "
                    "version, or use the same image"
                )
        precision = _precision(self.config)
        if precision != self.precision:
            raise UserError(
                f"the search computes on {self.precision}, this worker would on {precision}: use "
                "the same kind of machine, or set model.device and model.dtype"
            )

    def locate(self, folder: Path | None) -> SearchInputs:
        """The inputs on this machine, below `folder` if there is one.

        There they have their names, such as `checkpoint`, or the end of the lead's paths. Raises
        UserError for one that is missing or has another content.
        """
        found = {name: _locate(name, wanted, folder) for name, wanted in self.inputs.items()}
        return SearchInputs(**found)


def publish(study: optuna.Study, inputs: SearchInputs, config: PlanConfig) -> None:
    """Shows workers what they need. The storage's URL, with its password, is not part of it."""
    search = config.search.model_copy(update={"storage": None})
    publication = Publication(
        config=config.model_copy(update={"search": search}),
        inputs={
            name: Folder(path=str(path.resolve()), sha256=hash_directory(path))
            for name, path in vars(inputs).items()
            if path is not None
        },
        machine=machine(),
        precision=_precision(config),
        versions=_versions(),
    )
    study.set_user_attr(KEY, publication.model_dump(mode="json"))


def machine() -> str:
    """Identifies this machine since it was started, also from within its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _precision(config: PlanConfig) -> str:
    return f"{ckpt.device_of(config.model)} in {ckpt.compute_dtype(config.model)}"


def _versions() -> dict[str, str]:
    files = source_files("adapruner.search.search", ("adapruner",))
    code = hash_json([hash_file(file) for file in files])[:12]
    return {name: version(name) for name in PACKAGES} | {"code": code}


def _locate(name: str, wanted: Folder, folder: Path | None) -> Path:
    paths = [Path(wanted.path)] if folder is None else list(_candidates(name, wanted.path, folder))
    path = next((path for path in paths if path.is_dir()), None)
    if path is None:
        raise UserError(
            f"the search's {name} is not at '{paths[0]}' on this machine: mount the folder of the "
            f"lead's '{wanted.path}' and name it with --inputs"
        )
    if hash_directory(path) != wanted.sha256:
        raise UserError(
            f"'{path}' has another content than the search's {name}, '{wanted.path}': copy or "
            "mount that folder and name it with --inputs"
        )
    return path


def _candidates(name: str, path: str, folder: Path) -> Iterator[Path]:
    yield folder / name
    parts = PurePosixPath(path).parts[1:]
    for start in range(len(parts)):
        yield folder.joinpath(*parts[start:])
