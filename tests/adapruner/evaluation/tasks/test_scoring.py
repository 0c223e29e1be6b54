"""Which metric of a task is its score."""

from __future__ import annotations

from adapruner.evaluation.tasks.scoring import score_metric


def test_the_score_follows_the_papers_convention() -> None:
    both = ["acc", "acc_norm"]
    normalised = {"hellaswag", "arc_challenge", "openbookqa"}
    for task in ("boolq", "piqa", "winogrande", "arc_easy", *normalised):
        assert score_metric(task, both) == ("acc_norm" if task in normalised else "acc")
    assert score_metric("gsm8k", ["exact_match"]) == "exact_match"
