"""Log-likelihoods with shared contexts equal lm-eval's, for every family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.evaluation.tasks.shared_context_lm import SharedContextLM
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.surgery import apply
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.plans import plan_for
from tests.models import BASE, KINDS, small_model

Pair = tuple[Any, list[int], list[int]]


def requests(seed: int = 0) -> list[Pair]:
    """Questions with choices of all lengths, duplicates, rolling windows and overlong contexts."""
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
    models = [
        kind(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=48,
            device="cpu",
        )
        for kind in (HFLM, SharedContextLM)
    ]
    return models[0], models[1]


def check(model: Any, workplace: Workplace, shares: bool, pairs: list[Pair]) -> None:
    """Asserts that both give equal answers, and that contexts are shared or not."""
    theirs, ours = both(model, workplace)
    expected = theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    answers = ours._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert ours.works == {True: shares}
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in expected]
    for (score, _), (right, _) in zip(answers, expected, strict=True):
        assert score == pytest.approx(right, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_equal_lm_evals(kind: str, workplace: Workplace) -> None:
    # Rotary factors that depend on the length of the text give a prefix other keys.
    shares = "sliding_window" not in KINDS[kind] and kind != "phi3-long"
    check(small_model(kind), workplace, shares, requests())


def test_a_per_layer_model_shares_contexts_too(workplace: Workplace, tmp_path: Path) -> None:
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
def test_a_model_that_cannot_share_contexts_is_scored_by_lm_eval(
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
    answers = ours._loglikelihood_tokens(pairs)
    expected = theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert ours.works == {False: True}
    assert [score for score, _ in answers] == pytest.approx([e[0] for e in expected], abs=1e-4)


def test_a_continuation_longer_than_max_length_is_refused(workplace: Workplace) -> None:
    _, ours = both(small_model("llama"), workplace)
    with pytest.raises(ValueError, match=r"60 tokens .* evaluation\.max_length 48"):
        ours._loglikelihood_tokens([(None, [1], list(range(3, 63)))])


def test_a_context_is_computed_once_for_all_its_choices(workplace: Workplace) -> None:
    model = small_model("llama")
    rng = random.Random(3)
    contexts = [[rng.randint(3, 90) for _ in range(40)] for _ in range(6)]
    pairs = [
        (("c", "t"), c, [rng.randint(3, 90) for _ in range(4)]) for c in contexts for _ in "abcd"
    ]
    counts: list[int] = []
    theirs, ours = both(model, workplace)
    ours.works[True] = True
    model.get_input_embeddings().register_forward_hook(lambda *a: counts.append(a[1][0].numel()))
    theirs._loglikelihood_tokens(pairs, disable_tqdm=True)
    lm_evals = sum(counts)
    counts.clear()
    ours._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert lm_evals == 6 * 4 * 43
    assert sum(counts) == 6 * (40 + 4 * 3)
