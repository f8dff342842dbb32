"""The depthwise convolution of mixed precision has the values and gradients of PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from showtell.models.encoders.depthwise import depthwise


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 0), (5, 2, 0), (5, 2, 2)])
def test_values_and_gradients(kernel: int, stride: int, padding: int, size: int) -> None:
    """An even size with stride 2 leaves a last row and column that no window reaches."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, size, size).contiguous(memory_format=torch.channels_last)
    inputs = [x, torch.randn(6, 1, kernel, kernel), torch.randn(6)]
    for tensor in inputs:
        tensor.copy_(tensor.bfloat16()).requires_grad_()
    expected = F.conv2d(*inputs, stride, padding, groups=6)
    upstream = torch.randn_like(expected).bfloat16().float()
    exact = torch.autograd.grad(expected, inputs, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(*inputs, stride, padding)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    for mixed, one in zip(torch.autograd.grad(found, inputs, upstream.bfloat16()), exact, strict=True):
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, one, rtol=2e-2, atol=5e-2)


def test_without_mixed_precision_it_is_pytorchs() -> None:
    x, weight = torch.randn(1, 3, 5, 5), torch.randn(3, 1, 3, 3)
    assert torch.equal(depthwise(x, weight, None, 1, 1), F.conv2d(x, weight, None, 1, 1, groups=3))
