import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from adapruner.estimation import units
from adapruner.models.shallow import shallow_model
from adapruner.models.streamed.passes import LayerRunner
from tests.models import small_model

LENGTH = 32


def timed_shape(delay_of: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> torch.Size:
    """The samples and tokens that are timed where a pass over some tokens takes longer by this."""
    monkeypatch.setattr(units, "PASS", 2.0)
    model = shallow_model(small_model("llama").config, 1, units.EMBEDDINGS, torch.float32)

    def wait(_: Any, args: Any) -> None:
        time.sleep(delay_of(args[0].shape[0] * args[0].shape[1]))

    model.model.layers[0].mlp.register_forward_pre_hook(wait)
    clock = units.Clock(torch.device("cpu"))
    return units.timed_tokens(LayerRunner(model), LENGTH, clock).shape


def test_kernels_that_are_loaded_at_their_first_use_do_not_shorten_the_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()

    def loading(tokens: int) -> float:
        is_new = tokens not in seen
        seen.add(tokens)
        return 0.6 * is_new

    assert timed_shape(loading, monkeypatch) == (units.TOKENS // LENGTH, LENGTH)


def test_slow_pass_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed_shape(lambda tokens: 0.06 * tokens, monkeypatch) == (1, 16)
