from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapruner.config import EvaluationConfig


def test_only_keeps_the_named_settings_and_resets_all_others() -> None:
    whole = EvaluationConfig(gate={"size_ratio": 0.9}, repeats=2, prompt_tokens=8)
    assert whole.only("repeats") == EvaluationConfig(repeats=2)
    assert whole.prompt_tokens == (8,)


@pytest.mark.parametrize(
    ("gate", "texts", "message"),
    [
        ({"perplexity_ratio": {"wiki|text": 2}}, {}, "pattern"),
        ({"task_retention": {"boolq\n": 0.5}}, {"boolq": "x.txt"}, "pattern"),
        ({"perplexity_ratio": {"wikitxt": 2}}, {"wikitext": "x.txt"}, "none of evaluation.texts"),
    ],
)
def test_a_gate_names_what_is_measured_and_what_mlflow_can_store(
    gate: dict[str, Any], texts: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig(texts=texts, gate=gate)
    EvaluationConfig(texts={"wikitext": "x.txt"}, gate={"perplexity_ratio": {"wikitext": 2}})
