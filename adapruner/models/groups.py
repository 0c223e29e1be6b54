"""Weights in 4 bit: groups of input columns with a floating-point step and minimum each.

A weight w of a group is `d q + m` with the code q, 0 to 15, and the group's step d and minimum m in
float16: what GGUF's Q4_1 holds, so that a file of that type has the same values. An update that is
constant within a group moves m alone (QA-LoRA, arXiv 2309.14717, with a floating-point minimum).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapruner.errors import UserError
from adapruner.models.structures import Structures

BLOCK = 32
"""Columns whose codes are packed together, as in Q4_1; a group is one or more blocks."""

LEVELS = 15
"""The largest code."""

ROWS = 512
"""Rows of a weight that are quantized at once."""

SHRINKAGES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's range that the steps are tried for; what is outside is clipped."""

GROUPS_FILE = "groups.safetensors"
"""The projections in 4 bit, beside the checkpoint, of a model that was trained so."""


@dataclass(frozen=True)
class Groups:
    """A weight [out, in] in groups of `size` columns.

    `codes` is uint8 [out, in / 32, 16]: byte j of a block has column j in its low and column j + 16
    in its high half. `step` and `minimum` are float16 [out, in / size].
    """

    codes: Tensor
    step: Tensor
    minimum: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        return self.codes.shape[0], self.codes.shape[1] * BLOCK

    @property
    def size(self) -> int:
        """Columns of a group."""
        return self.shape[1] // self.step.shape[1]

    def dense(self) -> Tensor:
        """The weight, float32 [out, in]."""
        codes = torch.cat((self.codes & LEVELS, self.codes >> 4), -1)
        grouped = codes.view(*self.step.shape, self.size).float()
        weight = torch.addcmul(
            self.minimum.float()[..., None], grouped, self.step.float()[..., None]
        )
        return weight.view(self.shape)

    def moved(self, minimum: Tensor) -> Groups:
        """The same codes and steps with another minimum, [out, in / size], rounded to float16."""
        return replace(self, minimum=minimum.detach().half())


def quantize(weight: Tensor, size: int) -> Groups:
    """The groups of a weight [out, in], whose columns are a multiple of `size`, itself one of 32.

    Of each group the codes span its whole range or a part of it, whichever leaves the smallest
    squared error; d and m are the least-squares fit to the codes. The smallest weight has the code
    0 and the largest 15, so that the groups of `dense()` by their range are these again.
    """
    parts = [_quantized(rows, size) for rows in torch.split(weight.detach(), ROWS)]
    return Groups(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _quantized(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    weights = rows.float().view(len(rows), -1, size)
    best, least = _fit(weights, SHRINKAGES[0])
    for share in SHRINKAGES[1:]:
        fit, error = _fit(weights, share)
        is_better = error < least
        least = torch.where(is_better, error, least)
        best = tuple(
            torch.where(is_better.view(is_better.shape + (1,) * (new.dim() - 2)), new, old)
            for new, old in zip(fit, best, strict=True)
        )
    codes, step, minimum = best
    return _packed(codes), step, minimum


def _fit(weights: Tensor, share: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """Codes uint8 [out, G, size], d and m float16 [out, G]; and the squared error [out, G].

    `weights` is [out, G, size]; the codes span `share` of a group's range, around its middle.
    """
    low, high = weights.aminmax(dim=-1)
    width = (high - low) * share
    start = (low + high - width) / 2
    scale = torch.where(width > 0, LEVELS / width, torch.zeros_like(width))
    codes = ((weights - start[..., None]) * scale[..., None]).round_().clamp_(0, LEVELS)
    mean, middle = codes.mean(-1), weights.mean(-1)
    centred = codes - mean[..., None]
    variance = centred.square().sum(-1)
    step = (centred * weights).sum(-1) / variance.clamp_min(1e-12)
    step = step.half()
    minimum = (middle - step.float() * mean).half()
    error = codes * step.float()[..., None] + minimum.float()[..., None] - weights
    return (codes.byte(), step, minimum), error.square().sum(-1)


def _packed(codes: Tensor) -> Tensor:
    """Codes uint8 [out, G, size] as those of `Groups`."""
    low, high = codes.view(len(codes), -1, 2, BLOCK // 2).unbind(2)
    return low | high << 4


def check_groups(structures: Structures, group_size: int) -> None:
    """Raises UserError for a model whose projections can't be tuned in groups."""
    if structures.has_experts:
        raise UserError(
            f"finetune.method grouped: the experts of {structures.family.architecture} are no "
            "linear layers, which it takes; use lora"
        )
    if structures.hidden_size % group_size:
        raise UserError(
            f"finetune.group_size {group_size}: the hidden size {structures.hidden_size} is no "
            "multiple of it; use a smaller one, or finetune.method: lora"
        )


def narrow_warning(round_to: int, group_size: int) -> list[str]:
    """The line that says so where MLP widths are no multiples of the group size."""
    if round_to % group_size == 0:
        return []
    return [
        f"pruning.round_to {round_to} is no multiple of finetune.group_size {group_size}: down "
        "projections of other widths are neither tuned nor in 4 bit; use pruning.target: llama.cpp"
    ]


def write_groups(groups: Mapping[str, Groups], file: Path) -> None:
    """Writes the groups of weights by their names, as a safetensors file."""
    tensors = {
        f"{name}.{part}": getattr(weight, part).contiguous()
        for name, weight in groups.items()
        for part in Groups.__annotations__
    }
    save_file(tensors, file)
    file.chmod(0o644)  # the library creates it readable by its owner alone


def read_groups(file: Path, names: Iterable[str]) -> dict[str, Groups]:
    """The groups of those of the weights `names` that the file of `write_groups` has."""
    with safe_open(file, framework="pt") as tensors:
        stored = set(tensors.keys())
        return {
            name: Groups(*(tensors.get_tensor(f"{name}.{p}") for p in Groups.__annotations__))
            for name in names
            if f"{name}.codes" in stored
        }
