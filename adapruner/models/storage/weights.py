"""The weight files of a checkpoint, the tensors in them, and checks against its config."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapruner.errors import UserError, first_line
from adapruner.files import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_LENGTH = 8
"""Bytes of a safetensors file that hold the length of its header."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Data type in the header of a safetensors file -> that of torch."""

Entry = tuple[int, str, tuple[int, ...]]
"""Of a tensor in the header of a safetensors file: first byte in the file, data type, shape."""

COMPUTED_SUFFIX = "rotary_emb.inv_freq"
"""Llama checkpoints saved before Transformers 4.31 contain this buffer; models compute it."""


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those that its index names, else the single one.

    Raises UserError where one is missing, and for an index that is damaged or leaves the directory.
    """
    index = checkpoint / INDEX_FILE
    names = {WEIGHTS_FILE}
    if index.is_file():
        try:
            names = set(map(os.fspath, read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"'{index}' is not an index of safetensors; fetch it again") from None
    elif not (checkpoint / WEIGHTS_FILE).is_file():
        raise UserError(
            f"'{checkpoint}' has neither {WEIGHTS_FILE} nor {INDEX_FILE}; "
            "other formats of weights are not supported"
        )
    for name in names:
        # The function of `os.path` is also False for a name that no file can have.
        if Path(name).name != name or not os.path.isfile(checkpoint / name):  # noqa: PTH113
            raise UserError(f"'{checkpoint}' lacks '{name}', which its index names; fetch it again")
    return [checkpoint / name for name in sorted(names)]


def tensor_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the headers of a checkpoint's weight files.

    Raises UserError for a damaged or truncated file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(checkpoint):
        try:
            with safe_open(file, framework="np") as tensors:  # maps the file read-only
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"'{file}' is damaged or truncated ({first_line(error)}); fetch it again"
            ) from None
    return shapes


def stored_dtypes(checkpoint: Path) -> dict[str, torch.dtype]:
    """Tensor name -> data type, from the headers of a checkpoint's weight files.

    Raises UserError for a data type that models don't have.
    """
    dtypes = {}
    for name, (file, (_, dtype, _)) in tensor_places(checkpoint).items():
        if dtype not in DTYPES:
            raise UserError(f"'{file}': '{name}' has the data type {dtype}; convert it")
        dtypes[name] = DTYPES[dtype]
    return dtypes


def stored_dtype(checkpoint: Path) -> torch.dtype:
    """The data type that the weights are stored in; of several, one that holds the values of all.

    Raises UserError where no tensor is of a floating-point type.
    """
    floating = {dtype for dtype in stored_dtypes(checkpoint).values() if dtype.is_floating_point}
    if not floating:
        raise UserError(f"'{checkpoint}' holds no floating-point weights")
    return reduce(torch.promote_types, floating)


def tensor_entries(file: Path) -> dict[str, Entry]:
    """Tensor name -> entry in the header of a safetensors file."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(_LENGTH), "little")
        header = json.loads(opened.read(size))
    header.pop("__metadata__", None)
    start = _LENGTH + size
    return {
        name: (start + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def tensor_places(checkpoint: Path) -> dict[str, tuple[Path, Entry]]:
    """Tensor name -> file and entry, of a checkpoint."""
    return {
        name: (file, entry)
        for file in weight_files(checkpoint)
        for name, entry in tensor_entries(file).items()
    }


def stored_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of a safetensors file, in the order of their bytes."""
    entries = tensor_entries(file)
    for name in sorted(entries, key=entries.__getitem__):
        yield name, read_tensor(file, name, entries[name])


def read_tensor(file: Path, name: str, entry: Entry) -> Tensor:
    """A tensor on the CPU, in its stored data type, from its entry among `tensor_entries`.

    It is read, not mapped: torch needs a private mapping, of which the whole file counts towards
    a limit of data (RLIMIT_DATA). Raises UserError for a short file and a data type that models
    don't have.
    """
    start, dtype, shape = entry
    if dtype not in DTYPES:
        raise UserError(f"'{file}': '{name}' has the data type {dtype}; convert it")
    tensor = torch.empty(shape, dtype=DTYPES[dtype])
    target = tensor.view(-1).view(torch.uint8).numpy()
    with file.open("rb", buffering=0) as opened:
        opened.seek(start)
        done = 0
        while done < len(target):  # one call reads 2 GiB at most
            count = opened.readinto(target[done:].data)
            if not count:
                raise UserError(f"'{file}' is truncated at '{name}'; fetch it again")
            done += count
    return tensor


def rewrite_tensors(source: Path, target: Path, change: Callable[[str, Tensor], Tensor]) -> None:
    """Writes a safetensors file whose tensors `change` makes of name and tensor of `source`.

    The header is that of `source`, so data types and shapes stay. One tensor at a time is in
    memory: safetensors' own writer takes all of them. `target` is written as a whole or not at all.
    """
    with source.open("rb") as file:
        size = file.read(_LENGTH)
        header = file.read(int.from_bytes(size, "little"))
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(size + header)
            for name, old in stored_tensors(source):
                new = change(name, old).to(old.dtype).cpu().contiguous()
                file.write(new.view(-1).view(torch.uint8).numpy().data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def size_on_disk(checkpoint: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(file.stat().st_size for file in weight_files(checkpoint))


def check_tensors(model: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError unless a checkpoint's tensors are exactly those of `model`."""
    stored = _as_stored(model, model.state_dict())
    expected = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    optional = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, shape in expected.items():
        if name not in shapes and name not in optional:
            raise UserError(f"the weights lack '{name}', which config.json requires")
        if shapes.get(name, shape) != shape:
            raise UserError(
                f"config.json does not fit the weights: '{name}' is {list(shapes[name])}, "
                f"the config requires {list(shape)}"
            )
    for name in shapes:
        if name not in expected and not name.endswith(COMPUTED_SUFFIX):
            raise UserError(f"the weights hold '{name}', which config.json has no place for")


def check_tied(checkpoint: Path, config: Any) -> None:
    """Raises UserError when the config ties two embeddings that are stored and differ."""
    embeddings = {}
    for file in weight_files(checkpoint) if config.tie_word_embeddings else ():
        entries = tensor_entries(file)
        for name in {"lm_head.weight", "model.embed_tokens.weight"} & set(entries):
            embeddings[name] = read_tensor(file, name, entries[name])
    if len(embeddings) == 2 and not torch.equal(*embeddings.values()):
        raise UserError(
            f"'{checkpoint}': config.json ties the embeddings, but the weights hold two different "
            "ones; set tie_word_embeddings to false in config.json"
        )


def stored_weights(
    model: Any, prefix: str = "", dtypes: Mapping[str, torch.dtype] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Name and weight, on the CPU, of each tensor that a checkpoint of `model` holds.

    They are those whose names begin with `prefix`, without tensors on the meta device; tied
    embeddings are one tensor. Those that `dtypes` names have its types, others the model's. One
    tensor at a time is split into those of experts, so that memory holds them once.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = head.weight.data_ptr() == embedding.weight.data_ptr()
    for name, tensor in model.state_dict().items():
        is_left_out = tensor.is_meta or (is_tied and name == "lm_head.weight")
        if is_left_out or not name.startswith(prefix):
            continue
        for stored, part in _as_stored(model, {name: tensor.cpu()}).items():
            yield stored, _separate(part.to((dtypes or {}).get(stored, part.dtype)))


def _as_stored(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name -> tensor as in a checkpoint, which holds experts one by one."""
    # Not at the top: files are also read where no model is built, and Transformers takes seconds.
    from transformers.core_model_loading import revert_weight_conversion

    stored: dict[str, Tensor] = revert_weight_conversion(model, tensors)
    return stored


def _separate(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own: a part of another, such as an expert, can't be saved."""
    is_part = tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if is_part else tensor.contiguous()
