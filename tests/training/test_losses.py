"""Losses: padding never counts, terms are what the papers say."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from showtell.models.packing import Forced
from showtell.training.batches import Batch, batch_of
from showtell.training.losses import loss_terms, with_own_words, word_loss

V = 11


@pytest.fixture
def batch() -> Batch:
    return batch_of(np.array([0, 1]), [[[1, 4, 5, 2], [1, 6, 2]], [[1, 7, 8, 9, 2]]])


def test_word_loss_is_the_mean_over_real_words(batch: Batch) -> None:
    """One caption at a time, without any padding, gives the same number."""
    logits = torch.randn(2, batch.packing.size, V)
    by_position = batch.packing.unpack(logits)
    pairs = [(0, 0, [4, 5, 2]), (0, 1, [6, 2]), (1, 0, [7, 8, 9, 2])]
    losses = []
    for b, k, targets in pairs:
        losses.append(F.cross_entropy(by_position[b, k, : len(targets)], torch.tensor(targets), reduction="sum"))
    assert word_loss(logits, batch, 0.0).item() == pytest.approx((sum(losses) / 9).item(), rel=1e-5)


def test_padding_has_no_gradient(batch: Batch) -> None:
    """The mistake of many captioners: `<pad>` after `<end>` is learnt as a word."""
    logits = torch.randn(2, batch.packing.size, V, requires_grad=True)
    attention = torch.rand(2, batch.packing.size, 3, requires_grad=True)
    terms = loss_terms(Forced(logits, attention), batch, label_smoothing=0.1, doubly_stochastic=1.0)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert logits.grad is not None
    assert attention.grad is not None
    for gradient in (logits.grad, attention.grad):
        assert torch.equal(gradient.abs().sum(-1) > 0, batch.real)


def test_scheduled_sampling_replaces_words_by_the_models_own(batch: Batch) -> None:
    """The word drawn after step t is what step t + 1 is fed; `<start>` and padding are never touched."""
    logits = torch.full((2, batch.packing.size, V), -1e9)
    own = torch.arange(batch.packing.size) % 5 + 5
    logits[:, torch.arange(batch.packing.size), own] = 0.0
    tokens = with_own_words(batch, logits, 1.0)
    expected = batch.packing.unpack(own.expand(2, -1))
    assert torch.equal(tokens[:, :, 0], batch.tokens[:, :, 0])
    assert tokens[1, 0].tolist() == [1, *expected[1, 0, :3].tolist()]
    assert torch.equal(tokens[batch.tokens == 0], batch.tokens[batch.tokens == 0])
    assert torch.equal(with_own_words(batch, logits, 0.0), batch.tokens)
