"""The objective of the search."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from adapruner.config.search import ObjectiveName
from adapruner.search.objective import Objective
from tests.models import small_model, tokens


@pytest.mark.parametrize("name", get_args(ObjectiveName))
def test_a_model_without_finite_logits_has_an_infinite_value(name: ObjectiveName) -> None:
    model = small_model("llama")
    objective = Objective.of(model, tokens(4, 16), name)
    assert objective.value(model) == pytest.approx(objective.dense, abs=1e-4)
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = math.nan
    assert objective.value(model) == math.inf
