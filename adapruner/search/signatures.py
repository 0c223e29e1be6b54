"""The signatures of the calibration samples, by which a trial selects samples of each domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from adapruner.importance.table import ImportanceTable

DIRECTIONS = 2
"""Number of directions in the space of the samples' signatures."""


@dataclass(frozen=True)
class Signatures:
    """`components` [N, DIRECTIONS] and the `domain` of each sample."""

    components: Tensor
    domain: tuple[int, ...]

    @classmethod
    def of(cls, table: ImportanceTable) -> Self:
        """Principal components of the samples' importance patterns within their domains.

        Components of the log Fisher importance over all channels, less the mean of the domain, each
        of unit variance; signs are fixed so that equal tables give equal signatures.
        """
        domain = torch.tensor(table.domain)
        logs = [layer.clamp_min(1e-30).log().double() for layer in table.fisher["mlp"]]
        centred = [_centred(rows, domain) for rows in logs]
        gram = sum((rows @ rows.T for rows in centred), torch.zeros(()).double())
        _, vectors = torch.linalg.eigh(gram)
        components = vectors.flip(1)[:, :DIRECTIONS]
        components = torch.nn.functional.pad(components, (0, DIRECTIONS - components.shape[1]))
        peaks = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
        scaled = components * peaks * float(len(components)) ** 0.5
        return cls(scaled.float(), table.domain)

    def furthest(self, direction: Sequence[float], count: int) -> tuple[int, ...]:
        """`count` samples, the furthest in `direction` of each domain, in its share of the pool."""
        projected = (self.components @ torch.tensor(direction)).tolist()
        by_domain: dict[int, list[int]] = {}
        for sample in sorted(range(len(projected)), key=lambda n: (-projected[n], n)):
            by_domain.setdefault(self.domain[sample], []).append(sample)
        # The relative rank within the domain: the best of every domain comes first.
        ranks = {
            sample: (rank + 0.5) / len(samples)
            for samples in by_domain.values()
            for rank, sample in enumerate(samples)
        }
        return tuple(sorted(sorted(ranks, key=lambda n: (ranks[n], n))[:count]))


def _centred(rows: Tensor, domain: Tensor) -> Tensor:
    """[N, C]: `rows` less the mean of each domain and of each sample."""
    rows = rows.clone()
    for index in sorted(set(domain.tolist())):
        rows[domain == index] -= rows[domain == index].mean(0)
    return rows - rows.mean(1, keepdim=True)
