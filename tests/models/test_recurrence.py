"""The recurrent operations are exact: they only order the work."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from showtell.models.recurrence import RecurrentLinear, additive_scores


@pytest.mark.parametrize("bias", [False, True])
def test_recurrent_linear_has_the_gradients_of_a_plain_linear(bias: bool) -> None:
    """The gradient of a weight that is used at each step must be the sum over steps, and inputs get theirs."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, bias=bias, dtype=torch.double)
    start = torch.randn(3, 2, 4, dtype=torch.double, requires_grad=True)

    def run(step: Callable[[nn.Linear, Tensor], Tensor]) -> Tensor:
        x = start
        for running in (2, 2, 1):
            x = torch.tanh(step(layer, x[:, :running]))
        return x.square().sum()

    ours = torch.autograd.grad(run(RecurrentLinear()), [*layer.parameters(), start])
    plain = torch.autograd.grad(run(lambda layer, x: layer(x)), [*layer.parameters(), start])
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_recurrent_linear_without_gradients_keeps_nothing() -> None:
    """In search it must not gather inputs: memory would grow with every word."""
    linear, layer = RecurrentLinear(), nn.Linear(4, 4)
    with torch.no_grad():
        linear(layer, torch.randn(2, 4))
    assert not linear.weights[layer].inputs


def test_recurrent_linear_whose_output_is_not_used_gives_no_gradient() -> None:
    layer = nn.Linear(4, 4)
    RecurrentLinear()(layer, torch.randn(2, 4))
    loss = layer.weight.sum()
    loss.backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (3, 1, 49, 8)])
def test_additive_scores(shape: tuple[int, int, int, int]) -> None:
    """Values as the formula says, gradients as finite differences say."""
    torch.manual_seed(0)
    batch, captions, cells, width = shape
    keys = torch.randn(batch, cells, width, dtype=torch.double, requires_grad=True)
    query = torch.randn(batch, captions, width, dtype=torch.double, requires_grad=True)
    score = torch.randn(width, dtype=torch.double, requires_grad=True)
    expected = torch.einsum("bkna,a->bkn", torch.tanh(keys[:, None] + query[:, :, None]), score)
    torch.testing.assert_close(additive_scores(keys, query, score), expected)
    assert torch.autograd.gradcheck(additive_scores, (keys, query, score))
