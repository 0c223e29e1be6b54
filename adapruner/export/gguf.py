"""GGUF, the file of llama.cpp and of what is built on it.

Layers of one width have the family's own architecture. Layers that differ have `deci`, the only one
that reads the widths of each layer of a Llama-like decoder; other families are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization

from adapruner.errors import UserError
from adapruner.export.architectures import ARCHITECTURES, SQUARE_ATTENTION, WINDOWS
from adapruner.export.contents import Contents, refuse_layers
from adapruner.export.gguf_fields import add_fields, unsupported_setting
from adapruner.export.gguf_tensors import TYPES, Stored, Tensors
from adapruner.export.gguf_tokenizer import add_tokenizer, check_tokenizer
from adapruner.models.storage.checkpoint import load_tokenizer
from adapruner.progress import announce

DEFAULT_TYPE = "f16"

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}


def check_supported(contents: Contents) -> None:
    """Raises UserError for a model that no architecture of GGUF computes exactly."""
    architecture = _architecture(contents)
    Tensors(contents.checkpoint, contents, architecture, DEFAULT_TYPE).plan()
    check_tokenizer(load_tokenizer(contents.checkpoint), contents.config.vocab_size)


def file_name(name: str, tensor_type: str) -> str:
    """The name of the file: the checkpoint's and the type of its tensors."""
    return f"{name}-{tensor_type}.gguf"


def write(checkpoint: Path, contents: Contents, tensor_type: str, out: Path) -> None:
    """Writes the file `out`. One tensor at a time is in memory."""
    architecture = _architecture(contents)
    tokenizer = load_tokenizer(checkpoint)
    tensors = Tensors(checkpoint, contents, architecture, tensor_type)
    writer = gguf.GGUFWriter(out, architecture)
    try:
        _add_widths(writer, contents)
        writer.add_file_type(FILE_TYPES[tensor_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_tokenizer(writer, tokenizer, contents.config.vocab_size)
        _write_tensors(writer, tensors)
    finally:
        writer.close()


def _architecture(contents: Contents) -> str:
    """The architecture that holds the checkpoint."""
    family = contents.structures.family
    row = ARCHITECTURES.get(family.model_type)
    if row is None:
        raise UserError(
            f"the GGUF export can't hold {family.architecture}; it takes the families "
            f"{', '.join(ARCHITECTURES)}"
        )
    has_heads = row.equal not in SQUARE_ATTENTION or contents.attention_is_square
    name = row.equal if has_heads and not contents.layers_differ else row.per_layer
    if name is None and not has_heads:
        raise UserError(
            f"GGUF can't hold {family.architecture} with fewer heads: '{row.equal}' has all; prune "
            "with pruning.attention: none"
        )
    if name is None:
        raise refuse_layers(
            "GGUF", contents, f"llama.cpp builds every layer of '{row.equal}' with one width"
        )
    reason = unsupported_setting(name, row.activation, contents)
    if reason is None:
        return name
    if unsupported_setting(row.equal, row.activation, contents) is not None:
        raise UserError(f"{reason}; use another target")
    wanted = ["pruning.layout: uniform"] * contents.layers_differ
    wanted += ["pruning.attention: none"] * (not has_heads)
    raise UserError(f"{reason}; prune with {' and '.join(wanted)}")


def _add_widths(writer: gguf.GGUFWriter, contents: Contents) -> None:
    """Writes the shape of the model; widths are one number, or one for each layer."""

    def by_layer(values: Sequence[int]) -> int | list[int]:
        return list(values) if is_listed else values[0]

    is_listed = writer.arch in {row.per_layer for row in ARCHITECTURES.values()}
    config, layers, head_dim = contents.config, contents.layers, contents.structures.head_dim
    writer.add_block_count(len(layers))
    has_windows = writer.arch in WINDOWS
    positions = config.max_position_embeddings if has_windows else contents.context_length
    writer.add_context_length(positions)
    writer.add_embedding_length(contents.structures.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(by_layer([layer.mlp_channels for layer in layers]))
    writer.add_head_count(by_layer([layer.query_heads for layer in layers]))
    writer.add_head_count_kv(by_layer([layer.kv_groups for layer in layers]))
    # By default llama.cpp takes hidden size / heads of layer 0, which a cut changes.
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(contents.rotary_dimensions)
    writer.add_rope_freq_base(contents.rope_theta())
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_fields(writer, contents)


def _write_tensors(writer: gguf.GGUFWriter, tensors: Tensors) -> None:
    """Writes the descriptions of all tensors, then their values, in the same order."""
    plan, factors = tensors.plan(), tensors.frequency_factors()
    for stored in plan:
        block, size = gguf.GGML_QUANT_SIZES[stored.data_type]
        stored_bytes = prod(stored.shape) // block * size
        writer.add_tensor_info(
            stored.name, stored.shape, np.dtype(np.float32), stored_bytes, stored.data_type
        )
    for name, values in factors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, data in tensors.read():
        writer.write_tensor_data(data)
    for values in factors.values():
        writer.write_tensor_data(values)
    _announce_wider(plan, TYPES[tensors.tensor_type][0])


def _announce_wider(plan: list[Stored], wanted: Quantization) -> None:
    """Says how many projections stay f16 because their rows don't divide into blocks."""
    wider = [s for s in plan if len(s.shape) > 1 and s.data_type == Quantization.F16]
    if wider and wanted != Quantization.F16:
        announce(
            f"{len(wider)} tensors stay f16, since {wanted.name} takes rows of a multiple of "
            f"{gguf.GGML_QUANT_SIZES[wanted][0]}: pruning.target: llama.cpp gives such widths"
        )
