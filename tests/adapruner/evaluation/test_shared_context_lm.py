"""Shared contexts change nothing but the time: log-likelihoods are lm-eval's, for every family."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models import checkpoint as ckpt
from adapruner.evaluation.shared_context_lm import SharedContextLM
from adapruner.evaluation.packing import CALL_TOKENS, Request, groups_of, packed
from adapruner.pruning.surgery import apply
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.test_surgery import plan_for
from tests.models import BASE, KINDS, small_model

Pair = tuple[Any, list[int], list[int]]


def requests(seed: int = 0) -> list[Pair]:
    """Questions with choices of all lengths, twins, short choices, rolling windows, overlong."""
    rng = random.Random(seed)

    def words(least: int, most: int) -> list[int]:
        return [rng.randint(3, 90) for _ in range(rng.randint(least, most))]

    pairs: list[Pair] = []
    for _ in range(8):
        context = words(1, 25)
        pairs += [(("c", "t"), context, words(1, 9)) for _ in range(rng.randint(1, 5))]
        start = words(0, 3)
        pairs += [(("c", "t"), context, [*start, *words(1, 4)]) for _ in range(2)]
        tail = words(2, 6)
        pairs += [(("c", "t"), [*context, *words(1, 2)], tail) for _ in range(2)]
    pairs += [(("c", "t"), context, [4]), (("c", "t"), context, [5]), (("c", "t"), context, [5])]
    pairs += [(None, [1], words(5, 20)) for _ in range(3)]
    pairs += [(("c", "t"), words(60, 70), words(2, 5)) for _ in range(2)]
    rng.shuffle(pairs)
    return pairs


def both(model: Any, workplace: Workplace, batch_size: int = 2) -> tuple[HFLM, SharedContextLM]:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    made = [
        kind(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=48,
            device="cpu",
        )
        for kind in (HFLM, SharedContextLM)
    ]
    return made[0], made[1]


def check(model: Any, workplace: Workplace, shares: bool, pairs: list[Pair]) -> None:
    theirs, ours = both(model, workplace)
    wanted = theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    found = ours._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert ours.works == {True: shares}
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    for (score, _), (right, _) in zip(found, wanted, strict=True):
        assert score == pytest.approx(right, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_are_lm_evals(kind: str, workplace: Workplace) -> None:
    check(small_model(kind), workplace, True, requests())


def test_layers_of_different_widths_share_too(workplace: Workplace, tmp_path: Path) -> None:
    model = small_model("llama")
    apply(model, plan_for(model, "ragged"))
    ckpt.save_checkpoint(model, workplace.checkpoint, tmp_path)
    reloaded = ckpt.load_model(tmp_path, workplace.model)
    assert type(reloaded).__name__ == "PerLayerLlamaForCausalLM"
    check(reloaded, workplace, True, requests(seed=1))


def small(**fields: Any) -> Any:
    torch.manual_seed(0)
    common = {k: v for k, v in BASE.items() if k != "head_dim"}
    config = AutoConfig.for_model(**{**common, **fields})
    return AutoModelForCausalLM.from_config(config).eval()


def mamba() -> Any:
    return small(model_type="mamba", state_size=4)


@pytest.mark.parametrize(
    ("fields", "shares"),
    [
        ({"model_type": "mistral", "sliding_window": 64}, True),
        ({"model_type": "mistral", "sliding_window": 16}, False),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4}, True),
        ({"model_type": "mamba", "state_size": 4}, False),
    ],
    ids=["window beyond the longest request", "window within it", "gpt2", "mamba"],
)
def test_a_model_that_cannot_share_is_measured_in_lm_evals_way(
    fields: dict[str, Any], shares: bool, workplace: Workplace
) -> None:
    check(small(**fields), workplace, shares, requests())


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_one_token_choices_need_no_cache(kind: str, workplace: Workplace) -> None:
    model = small_model(kind) if kind in KINDS else mamba()
    theirs, ours = both(model, workplace)
    pairs: list[Pair] = [
        (("c", "t"), [*range(n, n + n // 2)], [t]) for n in (14, 25, 19) for t in (4, 5)
    ]
    found = ours._loglikelihood_tokens(pairs)
    wanted = theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert ours.works == {False: True}
    assert [f[0] for f in found] == pytest.approx([w[0] for w in wanted], abs=1e-4)


def test_a_context_is_read_once_for_all_its_choices(workplace: Workplace) -> None:
    model = small_model("llama")
    rng = random.Random(3)
    contexts = [[rng.randint(3, 90) for _ in range(40)] for _ in range(6)]
    pairs = [
        (("c", "t"), c, [rng.randint(3, 90) for _ in range(4)]) for c in contexts for _ in "abcd"
    ]
    read: list[int] = []
    theirs, ours = both(model, workplace)
    ours.works[True] = True
    model.get_input_embeddings().register_forward_hook(lambda *a: read.append(a[1][0].numel()))
    theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    lm_evals = sum(read)
    read.clear()
    ours._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert lm_evals == 6 * 4 * 43
    assert sum(read) == 6 * (40 + 4 * 3)


def test_groups_hold_every_request_once_and_what_they_share() -> None:
    asked = [Request(i, [*c, *t][:-1], t) for i, (_, c, t) in enumerate(requests(seed=2))]
    groups = groups_of(asked)
    assert sorted(m.number for g in groups for m in g.members) == list(range(len(asked)))
    for group in groups:
        assert all(m.tokens[: group.shared] == group.prefix for m in group.members)
    one = groups_of([Request(0, [1, 5, 6], [7]), Request(1, [1, 8, 9], [7])])
    assert [len(group.members) for group in one] == [1, 1]
    assert groups_of([]) == []


def test_batches_are_the_cheapest_that_are_allowed() -> None:
    def cost(parts: list[list[int]]) -> int:
        return sum(len(part) * part[0] + CALL_TOKENS for part in parts)

    lengths = [90, 80, 75, 40, 39, 12, 9, 8, 1]
    best = packed(lengths, lambda n: n, lambda count, longest: count * longest <= 200)
    assert sorted(itertools.chain(*best), reverse=True) == lengths
    cheapest = None
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        parts = [[lengths[0]]]
        for cut, length in zip(cuts, lengths[1:], strict=True):
            parts.append([length]) if cut else parts[-1].append(length)
        if all(len(part) == 1 or len(part) * part[0] <= 200 for part in parts):
            cheapest = min(cost(parts), cheapest or cost(parts))
    assert cost(best) == cheapest
    assert packed([300, 5], lambda n: n, lambda count, longest: count * longest <= 200) == [
        [300],
        [5],
    ]
