"""Dropout drops the share that it says, and nothing else changes."""

import pytest
import torch

from showtell.models.dropout import Dropout


@pytest.mark.parametrize("shape", [(400, 501), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_stays(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    y = Dropout(0.2)(x)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert ((y == 0) | ((y - 1.25).abs() < 1e-2)).all()
    if y.numel() > 1000:
        assert (y == 0).float().mean().item() == pytest.approx(0.2, abs=5e-3)
        assert y.float().mean().item() == pytest.approx(1, abs=5e-3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach(), msg="what is dropped has no gradient, the rest the same factor")


def test_numbers_follow_from_the_seed_and_differ_without_it() -> None:
    x, dropout = torch.ones(50), Dropout(0.5)
    torch.manual_seed(0)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_for_nothing() -> None:
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
