import torch
from torch import Tensor

from adapruner.importance.gradients import Seen, backward, watched
from adapruner.models.structures import layer_modules
from tests.models import small_model, tokens


def test_gradient_of_an_input_is_that_of_its_projection_alone() -> None:
    model = small_model("llama")
    layers = layer_modules(model)
    mlp, seen = model.model.layers[1].mlp, dict[str, Seen]()

    def also_read_elsewhere(hidden: Tensor) -> Tensor:
        inner = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        output: Tensor = mlp.down_proj(inner) + inner.mean(-1, keepdim=True)
        return output

    mlp.forward = also_read_elsewhere
    with watched(layers[1:2], lambda _, name, __, of_part: seen.update({name: of_part})):
        backward(model, tokens(2, 8))
    for name in ("down", "output"):
        grads = seen[name].output_grads @ layers[1].projections[name].weight
        assert seen[name].input_grads is not None
        torch.testing.assert_close(seen[name].input_grads, grads)
    assert seen["gate"].input_grads is None
