"""Losses: padding never counts, terms are what the papers say."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.models.decoder import Choices, Forced
from showtell.models.show_attend_and_tell import ShowAttendAndTell, ShowAttendAndTellConfig
from showtell.training.inputs.batches import Batch, batch_of
from showtell.training.stages.cross_entropy import with_own_words
from showtell.training.stages.losses import choice_terms, loss_terms, word_loss

V = 11


@pytest.fixture
def batch() -> Batch:
    return batch_of(np.array([0, 1]), [[[1, 4, 5, 2], [1, 6, 2]], [[1, 7, 8, 9, 2]]])


def test_word_loss_is_the_mean_over_real_words(batch: Batch) -> None:
    """One caption at a time, without any padding, gives the same number; a photo counts once, whatever its captions."""
    logits = torch.randn(2, batch.packing.size, V)
    by_position = batch.packing.unpack(logits)
    pairs = [(0, 0, [4, 5, 2]), (0, 1, [6, 2]), (1, 0, [7, 8, 9, 2])]
    losses = []
    for b, k, targets in pairs:
        losses.append(F.cross_entropy(by_position[b, k, : len(targets)], torch.tensor(targets), reduction="sum"))
    of_photos = (losses[0] + losses[1]) / 2 + losses[2]
    assert word_loss(logits, batch, 0.0).item() == pytest.approx((of_photos / (5 / 2 + 4)).item(), rel=1e-5)


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


class Chooser(ShowAttendAndTell):
    """Hard attention whose cells are given, word by word."""

    cells: list[int]

    def chosen(self, alpha: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return F.one_hot(torch.tensor([[self.cells.pop(0)]]), alpha.shape[-1]).to(alpha)


def test_reinforce_is_the_gradient_of_the_expected_log_likelihood() -> None:
    """Section 4.1: over all choices of cells, weighed by their probability, the estimate is the exact gradient.

    Whatever the baseline is; and the choices of a word are not rewarded by the words before it.
    """
    torch.manual_seed(0)
    cells, batch = 3, batch_of(np.array([0]), [[[1, 4, 2]]])
    config = ShowAttendAndTellConfig(embedding_width=5, hidden_width=4, attention_width=3, attention="hard")
    model = Chooser(config, 6, V).double().eval()
    model.score.weight.data *= 5
    grid = torch.randn(1, cells, 6, dtype=torch.float64)

    def told(choice: Sequence[int]) -> Forced:
        model.cells = list(choice)
        return model.forced(model.memory(grid), batch.tokens, batch.packing)

    def gradients(total: Tensor) -> list[Tensor]:
        weights = list(model.parameters())
        found = torch.autograd.grad(total, weights, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]

    exact = [torch.zeros_like(weight) for weight in model.parameters()]
    estimate = [torch.zeros_like(weight) for weight in model.parameters()]
    for choice in product(range(cells), repeat=batch.words):
        forced = told(choice)
        assert forced.choices is not None
        chance = forced.choices.log_probs.sum().exp()
        for so_far, part in zip(exact, gradients(chance * word_loss(forced.logits, batch, 0.0)), strict=True):
            so_far += part

        forced = told(choice)
        assert forced.choices is not None
        choices = forced.choices._replace(baseline=torch.tensor(-0.7, dtype=torch.float64))
        terms = loss_terms(forced, batch, label_smoothing=0.0) | choice_terms(
            forced, choices, batch, reinforce=1.0, entropy=0.0
        )
        for so_far, part in zip(estimate, gradients(torch.stack(list(terms.values())).sum()), strict=True):
            so_far += chance.detach() * part
    for truth, estimated in zip(exact, estimate, strict=True):
        torch.testing.assert_close(estimated, truth, rtol=1e-4, atol=1e-6)


def test_the_baseline_is_a_moving_average_of_drawn_words(batch: Batch) -> None:
    """Padding and images that were looked at softly don't move it, and they are not rewarded."""
    logits = torch.randn(2, batch.packing.size, V)
    log_probs = torch.randn(2, batch.packing.size, requires_grad=True)
    drawn = torch.tensor([[False], [True]])
    baseline = torch.tensor(-3.0)
    choices = Choices(log_probs, drawn, torch.zeros(2, batch.packing.size), baseline)
    terms = choice_terms(Forced(logits), choices, batch, reinforce=1.0, entropy=1.0)
    of_words = logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0][batch.real & drawn].mean()
    torch.testing.assert_close(baseline, 0.9 * torch.tensor(-3.0) + 0.1 * of_words)
    terms["choices"].backward()
    assert log_probs.grad is not None
    assert torch.equal(log_probs.grad != 0, batch.real & drawn)
    assert terms["entropy"] == 0
