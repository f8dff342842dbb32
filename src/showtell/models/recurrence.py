"""What recurrent decoders share: linear layers applied at every step, additive attention, the LSTM cell.

Everything here computes its formula in the order that is fastest; a test checks gradients against finite differences.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class RecurrentLinear:
    """Applies linear layers at each step of one forward pass: `linear(layer, x)` is `layer(x)`, and trains faster.

    By default, autograd adds a full-sized weight gradient at each of T steps: T small products and T passes over
    more memory than the activations take. Here each step keeps its input and its output's gradient, and the
    gradient of a weight is one product of all of them, at the end.
    """

    def __init__(self) -> None:
        self.weights: dict[nn.Linear, _RecurrentWeight] = {}

    def __call__(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        if layer not in self.weights:
            self.weights[layer] = _RecurrentWeight(layer.weight)
        product = self.weights[layer](x)
        return product if layer.bias is None else product + layer.bias


class _RecurrentWeight:
    """One weight, and what its gradient needs from each step."""

    def __init__(self, weight: Tensor) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        device = weight.device.type
        if torch.is_autocast_enabled(device):  # once, instead of at each step and hidden from the backward pass
            weight = weight.to(torch.get_autocast_dtype(device))
        self.weight: Tensor = (
            _GatherGradient.apply(weight, self) if weight.requires_grad and torch.is_grad_enabled() else weight
        )

    def __call__(self, x: Tensor) -> Tensor:
        if not self.weight.requires_grad:
            return F.linear(x, self.weight)
        product: Tensor = _KeepGradient.apply(x.to(self.weight.dtype), self.weight, self)
        return product


class _GatherGradient(Function):
    """Returns the weight, once, before its first use: this is the last node that the backward pass reaches."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, recurrent: _RecurrentWeight) -> Tensor:
        ctx.recurrent = recurrent
        ctx.set_materialize_grads(False)  # its own gradient is never used
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None]:
        recurrent = ctx.recurrent
        if not recurrent.gradients:
            return None, None
        inputs = torch.cat([x.reshape(-1, x.shape[-1]) for x in recurrent.inputs])
        gradients = torch.cat([g.reshape(-1, g.shape[-1]) for g in recurrent.gradients])
        recurrent.inputs.clear()
        recurrent.gradients.clear()
        return gradients.T @ inputs, None


class _KeepGradient(Function):
    """One use of the weight: passes the gradient to the input, and keeps what the weight's gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, recurrent: _RecurrentWeight) -> Tensor:
        ctx.recurrent = recurrent
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        ctx.recurrent.inputs.append(x)
        ctx.recurrent.gradients.append(gradient)
        return gradient @ weight, None, None


def additive_scores(keys: Tensor, query: Tensor, score: Tensor) -> Tensor:
    """Additive attention's scores, `score . tanh(key + query)`, every caption's query against its image's keys.

    Args:
        keys: `[B, N, A]`.
        query: `[B, K, A]`.
        score: `[A]`.

    Returns:
        `[B, K, N]`, float32 also for bfloat16: softmax needs them exact, and a CPU adds float32 faster.
    """
    wide = torch.promote_types(keys.dtype, torch.float32)
    keys, query, score = (2 * keys).to(wide), (2 * query).to(wide), score.to(wide)
    # tanh(x) = 2 sigmoid(2 x) - 1. PyTorch uses MKL for float32 tanh, which is 4 times as slow on an AMD processor.
    halves = torch.sigmoid(keys[:, None] + query[:, :, None])  # [B, K, N, A]
    with torch.autocast(keys.device.type, enabled=False):
        return F.linear(halves, 2 * score[None])[..., 0] - score.sum()


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The LSTM cell (Hochreiter and Schmidhuber 1997, with a forget gate), given the sums of its gates.

    Args:
        gates: input, forget and output gate and the new content, before their non-linearities, `[..., 4H]`.
        c: the previous cell, `[..., H]`; float32 even if the gates are bfloat16, as it is a sum over all steps.

    Returns:
        The new hidden state h, in the gates' type, and the new cell c, each `[..., H]`.
    """
    i, f, o, g = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh().type_as(o), c


def reset_lstm(from_hidden: Tensor, bias: Tensor) -> None:
    """Initialise: an orthogonal recurrence for each gate, and an open forget gate.

    Args:
        from_hidden: the weight from the hidden state to the gates, `[gates * H, H]`, changed in place.
        bias: the gates' only bias, `[gates * H]`, in `lstm`'s order, changed in place.
    """
    hidden = from_hidden.shape[1]
    with torch.no_grad():
        for gate in from_hidden.split(hidden):
            nn.init.orthogonal_(gate)
        bias.zero_()
        bias[hidden : 2 * hidden] = 1
