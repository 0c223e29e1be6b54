"""Every fixed score against its formula, from gradients and activations taken directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.pruning.allocation.allocate import allocate
from adapruner.config import PruningConfig
from adapruner.search.fixed_metric import recipe_of
from adapruner.importance.statistics import UNITS, importance_table, read_table, rereference
from adapruner.importance.scores import Scores, score
from adapruner.models.structures import describe_model, layer_modules
from tests.adapruner.conftest import Workplace
from tests.models import KINDS, small_model, tokens

SAMPLES, LENGTH, LAYER = 7, 10, 1
REFERENCE = [0, 3, 4]
KINDS_OF_UNITS = ("mlp", "heads", "groups")


class Case:
    """A small model, its table, and what each projection's units are made of, taken directly."""

    def __init__(self, kind: str) -> None:
        self.model, self.ids = small_model(kind), tokens(SAMPLES, LENGTH)
        self.table = importance_table(self.model, self.ids, REFERENCE)
        self.head_dim = describe_model(self.model).head_dim
        self.inputs = self._inputs()
        self.gradients = [self._gradients(row) for row in self.ids]
        self.weights = self._by_rows(lambda tensor: tensor.detach())

    def _inputs(self) -> dict[str, Tensor]:
        """What goes into down and output at every token, [SAMPLES * LENGTH, columns]."""
        found: dict[str, Tensor] = {}
        for name in ("down", "output"):
            linear = layer_modules(self.model)[LAYER].projections[name]
            handle = linear.register_forward_pre_hook(
                lambda _, args, name=name: found.update({name: args[0].flatten(0, 1)})
            )
            self.model(self.ids.long())
            handle.remove()
        return found

    def _gradients(self, row: Tensor) -> dict[str, Tensor]:
        self.model.requires_grad_(True)
        self.model.zero_grad()
        self.model(row[None].long(), labels=row[None].long()).loss.backward()
        found = self._by_rows(lambda tensor: tensor.grad.clone())
        self.model.requires_grad_(False)
        return found

    def _by_rows(self, of: Any) -> dict[str, Tensor]:
        """Projection -> a matrix with its units' rows (columns of down and output), then biases."""
        found = {}
        for name, linear in layer_modules(self.model)[LAYER].projections.items():
            matrix = of(linear.weight)
            if name in ("down", "output"):
                found[name] = matrix.T
            elif linear.bias is None:
                found[name] = matrix
            else:
                found[name] = torch.cat([matrix, of(linear.bias)[:, None]], 1)
        return found

    def summed(self, kind: str, of_row: Any) -> Tensor:
        """[units] of `kind`: the sum over coupled projections of `of_row(name)`, [rows]."""
        rows = 1 if kind == "mlp" else self.head_dim
        names = [name for name, unit in UNITS.items() if unit == kind]
        return sum(of_row(name).view(-1, rows).sum(1) for name in names)

    def scores(self, metric: Any) -> Scores:
        return score(self.table, recipe_of(metric, self.table, seed=3))


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def check(case: Case, metric: str, expected: Any, rtol: float = 3e-4) -> None:
    """`expected(kind)` is what the score of LAYER's units of `kind` is to be."""
    found = case.scores(metric)
    for kind in KINDS_OF_UNITS:
        by_hand = expected(kind)
        got = getattr(found, kind)[LAYER]
        scale = float(by_hand.abs().max())
        torch.testing.assert_close(got, by_hand, rtol=rtol, atol=3e-6 * scale + 1e-12)


def test_llm_pruners_element_wise_scores(case: Case) -> None:
    def mean(name: str, power: int) -> Tensor:
        return torch.stack([case.gradients[n][name] ** power for n in REFERENCE]).mean(0)

    def first(name: str) -> Tensor:
        return case.weights[name] * mean(name, 1)

    def second(name: str) -> Tensor:
        return case.weights[name] ** 2 * mean(name, 2)

    count = len(REFERENCE)
    check(case, "element1", lambda k: count * case.summed(k, lambda n: first(n).abs().sum(1)))
    check(case, "element2", lambda k: count * case.summed(k, lambda n: second(n).abs().sum(1)))
    check(case, "mixed",
          lambda k: case.summed(k, lambda n: (first(n) - second(n) / 2).abs().sum(1)))  # fmt: skip
    element1 = case.scores("element1").mlp[LAYER] / count
    assert not torch.allclose(case.scores("mixed").mlp[LAYER], element1, rtol=1e-3)


def test_llm_pruners_vector_wise_score_of_channels(case: Case) -> None:
    def summed(name: str) -> Tensor:
        return sum(case.weights[name] * case.gradients[n][name] for n in REFERENCE).sum(1)

    by_hand = case.summed("mlp", lambda name: summed(name).abs())
    got = case.scores("vector").mlp[LAYER]
    torch.testing.assert_close(got, by_hand, rtol=2e-3, atol=1e-4 * float(by_hand.max()))


def test_fisher_is_over_the_whole_pool(case: Case) -> None:
    def squares(name: str) -> Tensor:
        return sum((case.weights[name] * g[name]).square().sum(1) for g in case.gradients)

    check(case, "fisher", lambda kind: case.summed(kind, squares))


def test_magnitude_is_of_all_coupled_weights(case: Case) -> None:
    def squares(name: str) -> Tensor:
        return case.weights[name].square().sum(1)

    check(case, "magnitude", lambda kind: case.summed(kind, squares))


def by_column(case: Case, kind: str, of: Any) -> Tensor:
    """`of(X, W)` by column of down or output, summed by unit; nothing for key and value."""
    if kind == "groups":
        return torch.zeros_like(case.table.element["groups"][LAYER])
    name = "down" if kind == "mlp" else "output"
    weight = layer_modules(case.model)[LAYER].projections[name].weight.detach()
    rows = 1 if kind == "mlp" else case.head_dim
    return of(case.inputs[name], weight).view(-1, rows).sum(1)


def test_wanda_weighs_weights_by_the_norm_of_their_inputs(case: Case) -> None:
    check(case, "wanda", lambda kind: by_column(
        case, kind, lambda x, w: (w.abs() * x.norm(dim=0)).mean(0)))  # fmt: skip


def test_flap_is_the_fluctuation_of_inputs_standardised(case: Case) -> None:
    def expected(kind: str) -> Tensor:
        raw = by_column(case, kind, lambda x, w: x.var(0) * w.square().sum(0))
        return (raw - raw.mean()) / raw.std() if kind == "mlp" else raw

    check(case, "flap", expected)


def test_random_is_the_seeds(case: Case) -> None:
    drawn = [score(case.table, recipe_of("random", case.table, seed)) for seed in (3, 3, 4)]
    for kind in KINDS_OF_UNITS:
        one, same, other = (getattr(scores, kind)[LAYER] for scores in drawn)
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_flap_takes_the_lowest_of_all_unprotected_layers_together() -> None:
    case = Case("llama")
    structures = describe_model(case.model)
    pruning = PruningConfig(ratio=0.15, ratio_of="blocks", protect_first=1, protect_last=1,
                            round_to=1)  # fmt: skip
    found = case.scores("flap")
    assert found.comparable
    plan = allocate(found, structures, pruning, {})
    kept = [set(layer.channels()) for layer in plan.layers]
    free = [1, 2]
    ranked = sorted((float(s), i, c) for i in free for c, s in enumerate(found.mlp[i]))
    gone = sum(structures.layers[i].mlp_channels - len(kept[i]) for i in free)
    lowest = {(i, c) for _, i, c in ranked[:gone]}
    assert {(i, c) for i in free for c in range(48)} - lowest == {(i, c) for i in free
                                                                  for c in kept[i]}  # fmt: skip
    assert len(kept[0]) == len(kept[3]) == 48
    assert plan.ratio.achieved_blocks == pytest.approx(0.15, abs=0.01)

    uniform = pruning.model_copy(update={"layout": "uniform"})
    widths = {len(layer.channels()) for layer in allocate(found, structures, uniform, {}).layers}
    assert len(widths) == 1


def test_a_layer_that_would_lose_all_its_channels_keeps_some() -> None:
    structures = describe_model(small_model("llama"))
    mlp = [torch.zeros(48), torch.full((48,), -1.0), torch.ones(48), torch.zeros(48)]
    scores = Scores(mlp=mlp, heads=[torch.ones(4)] * 4, groups=[torch.ones(2)] * 4,
                    comparable=True)  # fmt: skip
    pruning = PruningConfig(ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1,
                            round_to=4)  # fmt: skip
    widths = [len(layer.channels()) for layer in allocate(scores, structures, pruning, {}).layers]
    assert widths[0] == widths[3] == 48
    assert 4 <= widths[1] < widths[2]


def test_another_reference_subset_is_scored_as_if_it_had_been_the_first(
    workplace: Workplace, tmp_path: Path
) -> None:
    from adapruner.importance.statistics import FILE, estimate

    folders = {name: tmp_path / name for name in ("first", "again", "whole")}
    for folder in folders.values():
        folder.mkdir()
    work = (workplace.checkpoint, workplace.pool)
    estimate(*work, workplace.model, 4, 0, folders["first"])
    estimate(*work, workplace.model, 4, 1, folders["whole"])
    rereference(*work, folders["first"], workplace.model, 1, folders["again"])
    again, whole = (read_table(folders[name] / FILE) for name in ("again", "whole"))
    assert again.reference == whole.reference != read_table(folders["first"] / FILE).reference
    for group in ("element", "mixed", "fisher", "input_square"):
        for part, layers in getattr(whole, group).items():
            for one, other in zip(layers, getattr(again, group)[part], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-9)
