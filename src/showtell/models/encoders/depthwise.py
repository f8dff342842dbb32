"""Depthwise convolutions in bfloat16, with a backward pass built from operations that are fast in oneDNN.

oneDNN's own backward pass is slow on a CPU: with a stride over 1 it takes 20 times as long as the forward pass, and for
the gradient of a 5 x 5 kernel 60 times. Here a stride's gradient is a forward convolution, too, over the gradient with
zeros between its numbers, and the gradient of a 5 x 5 kernel is computed in float32, which is faster.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F


def depthwise(x: Tensor, weight: Tensor, shift: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv2d`, one group per channel: `[B, C, h, w]`, channels last, `[C, 1, k, k]` and `[C]` -> `[B, C, ...]`."""
    bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if x.device.type != "cpu" or not bfloat16 or not torch.is_grad_enabled():
        return F.conv2d(x, weight, shift, stride, padding, groups=len(weight))
    filtered: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
        x.bfloat16(), weight.bfloat16(), None if shift is None else shift.bfloat16(), stride, padding
    )
    return filtered


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shift: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, shift, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, channels, kernel = ctx.stride, ctx.padding, len(weight), weight.shape[-1]
        of_x = of_weight = of_shift = None
        if ctx.needs_input_grad[0]:
            spread = gradient
            if stride > 1:
                height, width = (size + 2 * padding - kernel + 1 for size in x.shape[2:])
                spread = gradient.new_zeros(len(x), height, width, channels).permute(0, 3, 1, 2)  # channels last
                spread[:, :, ::stride, ::stride] = gradient
            of_x = F.conv2d(spread, weight.flip(2, 3), padding=kernel - 1 - padding, groups=channels)
        if ctx.needs_input_grad[1]:
            wide = torch.float32 if kernel > 3 else x.dtype
            _, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient.to(wide), x.to(wide), weight.to(wide), None, [stride] * 2, [padding] * 2, [1, 1],
                False, [0, 0], channels, [False, True, False],
            )  # fmt: skip
        if ctx.needs_input_grad[2]:
            of_shift = gradient.float().sum((0, 2, 3))
        return of_x, of_weight, of_shift, None, None
