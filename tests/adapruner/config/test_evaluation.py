from __future__ import annotations

from adapruner.config import EvaluationConfig


def test_only_keeps_the_named_settings_and_resets_all_others() -> None:
    whole = EvaluationConfig(gate={"size_ratio": 0.9}, repeats=2, prompt_tokens=8)
    assert whole.only("repeats") == EvaluationConfig(repeats=2)
    assert whole.prompt_tokens == (8,)
