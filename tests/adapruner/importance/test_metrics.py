"""Every metric against its formula, from gradients and activations computed directly."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.importance.metrics import METRICS
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import Scores, score
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import KINDS as KINDS_OF_UNITS
from adapruner.importance.table import UNITS, ImportanceTable
from adapruner.models.structures import describe_model, layer_modules, placed
from tests.models import KINDS, small_model, tokens, with_linear_experts

SAMPLES, LENGTH, LAYER = 7, 10, 1
REFERENCE = [0, 3, 4]


def recipe_of(metric: str, table: ImportanceTable, seed: int) -> Recipe:
    on_reference = METRICS[metric].needs.samples == "reference"
    samples = table.reference if on_reference else tuple(range(table.samples))
    return Recipe(metric=metric, samples=samples, seed=seed)


class Case:
    """A small model, its table, and the weights, gradients and inputs of one layer."""

    def __init__(self, kind: str) -> None:
        self.model, self.ids = small_model(kind), tokens(SAMPLES, LENGTH)
        self.table = importance_table(self.model, self.ids, REFERENCE)
        self.head_dim = describe_model(self.model).head_dim
        self.couples_heads = describe_model(self.model).family.couples_heads
        self.model = with_linear_experts(self.model)
        self.inputs = self._inputs()
        self.gradients = [self._gradients(row) for row in self.ids]
        self.weights = self._by_rows(lambda tensor: tensor.detach())

    def _inputs(self) -> dict[str, Tensor]:
        """The inputs of down and output at every token, [SAMPLES * LENGTH, columns]."""
        inputs: dict[str, Tensor] = {}
        for name in ("down", "output"):
            linear = layer_modules(self.model)[LAYER].projections[name]
            handle = linear.register_forward_pre_hook(
                lambda _, args, name=name: inputs.update({name: args[0].flatten(0, 1)})
            )
            self.model(self.ids.long())
            handle.remove()
        return inputs

    def _gradients(self, row: Tensor) -> dict[str, Tensor]:
        self.model.requires_grad_(True)
        self.model.zero_grad()
        self.model(row[None].long(), labels=row[None].long()).loss.backward()
        gradients = self._by_rows(lambda tensor: tensor.grad.clone())
        self.model.requires_grad_(False)
        return gradients

    def _by_rows(self, of: Any) -> dict[str, Tensor]:
        """Projection -> a matrix with its units' rows (columns of down and output), then biases."""
        matrices = {}
        for name, projection in layer_modules(self.model)[LAYER].projections.items():
            linear, rows = placed(projection)
            matrix = of(linear.weight)[rows]
            if name in ("down", "output"):
                matrices[name] = matrix.T
            elif linear.bias is None:
                matrices[name] = matrix
            else:
                matrices[name] = torch.cat([matrix, of(linear.bias)[rows, None]], 1)
        return matrices

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


def check(
    case: Case,
    metric: str,
    expected: Any,
    rtol: float = 3e-4,
    kinds: tuple[str, ...] = KINDS_OF_UNITS,
) -> None:
    """`expected(kind)` is the expected score of LAYER's units of `kind`."""
    scores = case.scores(metric)
    for kind in kinds:
        by_hand = expected(kind)
        got = getattr(scores, kind)[LAYER]
        scale = float(by_hand.abs().max())
        torch.testing.assert_close(got, by_hand, rtol=rtol, atol=3e-6 * scale + 1e-12)


def test_element_wise_scores_equal_llm_pruners(case: Case) -> None:
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


def test_vector_wise_score_equals_llm_pruners(case: Case) -> None:
    def summed(name: str) -> Tensor:
        return sum(case.weights[name] * case.gradients[n][name] for n in REFERENCE).sum(1)

    by_hand = case.summed("mlp", lambda name: summed(name).abs())
    got = case.scores("vector").mlp[LAYER]
    torch.testing.assert_close(got, by_hand, rtol=2e-3, atol=1e-4 * float(by_hand.max()))


def test_saap_fuses_vector_wise_and_element_wise_second_order_scores(case: Case) -> None:
    def vector(name: str) -> Tensor:
        by_sample = torch.stack([case.weights[name] * g[name] for g in case.gradients])
        rows = 1 if UNITS[name] == "mlp" else case.head_dim
        sums = by_sample.sum(2).view(SAMPLES, -1, rows).sum(2)  # w^T g_n of each coupled vector
        score = (sums.mean(0) - sums.square().mean(0) / 2).abs()
        return score.repeat_interleave(rows) / rows

    def element(name: str) -> Tensor:
        gradients = torch.stack([case.gradients[n][name] for n in REFERENCE])
        w, f = case.weights[name], gradients.square().mean(0)
        return (w * gradients.mean(0) - w**2 * f / 2).abs().sum(1)

    def fused(kind: str) -> Tensor:
        terms = [case.summed(kind, part) for part in (vector, element)]
        return sum(term / term.mean() for term in terms)

    # The sums of key and query differ where one norm spans all heads, of which none is removed.
    kinds = ("mlp",) if case.couples_heads else KINDS_OF_UNITS
    check(case, "saap", fused, 5e-3, kinds)


def test_fisher_is_the_sum_over_the_whole_pool(case: Case) -> None:
    def squares(name: str) -> Tensor:
        return sum((case.weights[name] * g[name]).square().sum(1) for g in case.gradients)

    check(case, "fisher", lambda kind: case.summed(kind, squares))


def test_magnitude_is_the_square_sum_of_all_coupled_weights(case: Case) -> None:
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


def test_wanda_multiplies_weights_by_the_norm_of_their_inputs(case: Case) -> None:
    check(case, "wanda", lambda kind: by_column(
        case, kind, lambda x, w: (w.abs() * x.norm(dim=0)).mean(0)))  # fmt: skip


def test_flap_is_the_standardized_fluctuation_of_inputs(case: Case) -> None:
    def expected(kind: str) -> Tensor:
        raw = by_column(case, kind, lambda x, w: x.var(0) * w.square().sum(0))
        return (raw - raw.mean()) / raw.std() if kind == "mlp" else raw

    check(case, "flap", expected)


def test_token_is_the_fisher_information_of_masks_on_tokens(case: Case) -> None:
    total = {"down": 0.0, "output": 0.0}
    for row in case.ids:
        for part, sums in masks_of_tokens(case, row[None].long()).items():
            total[part] = total[part] + sums.square().sum(0)

    def expected(kind: str) -> Tensor:
        return total["down" if kind == "mlp" else "output"]

    check(case, "token", expected, kinds=("mlp", "heads"))
    assert not case.scores("token").groups[LAYER].any()


def masks_of_tokens(case: Case, row: Tensor) -> dict[str, Tensor]:
    """The gradient of a mask on each structure at each token of a sample, [tokens, units]."""
    inputs: dict[str, Tensor] = {}

    def record(_: Any, args: Any, name: str) -> Any:
        inputs[name] = args[0].requires_grad_() if args[0].is_leaf else args[0]
        inputs[name].retain_grad()
        return (inputs[name],)

    handles = [
        layer_modules(case.model)[LAYER]
        .projections[name]
        .register_forward_pre_hook(partial(record, name=name))
        for name in ("down", "output")
    ]
    with torch.enable_grad():
        embedded = case.model.get_input_embeddings()(row).detach().requires_grad_()
        case.model(inputs_embeds=embedded, labels=row).loss.backward()
    for handle in handles:
        handle.remove()
    sizes = {"down": 1, "output": case.head_dim}
    return {
        name: (x.detach() * x.grad)[0].unflatten(-1, (-1, sizes[name])).sum(-1)
        for name, x in inputs.items()
    }


def test_random_scores_follow_the_seed(case: Case) -> None:
    drawn = [score(case.table, recipe_of("random", case.table, seed)) for seed in (3, 3, 4)]
    for kind in KINDS_OF_UNITS:
        one, same, other = (getattr(scores, kind)[LAYER] for scores in drawn)
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


@pytest.mark.parametrize("name", METRICS)
def test_metric_scores_every_structure_and_reads_only_what_it_declares(name: str) -> None:
    """The conformance test of a registered metric."""
    case, metric = Case("llama"), METRICS[name]
    recipe = recipe_of(name, case.table, seed=3)
    read: set[str] = set()

    class Watched:
        def __getattr__(self, group: str) -> Any:
            read.add(group)
            return getattr(case.table, group)

    for kind, widths in (("mlp", 48), ("heads", 4), ("groups", 2)):
        layers = metric.function(Watched(), recipe, kind)  # type: ignore[arg-type]
        assert [tuple(layer.shape) for layer in layers] == [(widths,)] * 4
        assert all(torch.isfinite(layer).all() for layer in layers)
        again = metric.function(case.table, recipe, kind)
        assert all(map(torch.equal, layers, again)), "the same recipe gives the same scores"
    shapes = {"units", "samples", "coarse", "length", "reference", "domain"}
    assert read - shapes <= set(metric.needs.statistics)
    assert metric.function.__doc__, "the docstring gives the formula and its source"
    assert metric.summary


def test_metrics_are_listed_without_torch() -> None:
    code = (
        "import sys; from adapruner.importance.metrics import METRICS; "
        "assert METRICS and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
