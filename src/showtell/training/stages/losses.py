"""The losses, as named terms: the trainer adds them up, and the log shows each."""

import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.models.decoder import Choices, Forced
from showtell.models.show_attend_and_tell import doubly_stochastic_penalty
from showtell.tokenizer import Tokenizer
from showtell.training.inputs.batches import Batch

IGNORED = -100
"""The target of padding, which is ignored."""


def word_loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Cross-entropy of the next words, in nats: the mean over the step (see `Batch`), without padding.

    Args:
        logits: `[B, P, V]`.
        batch: the targets, and which of them are real, `[B, P]`.
        label_smoothing: the share of the target that is spread evenly over the vocabulary.
    """
    # Padding is ignored, not cut out: `logits[real]` would copy all logits, and later all their gradients.
    targets = batch.targets.where(batch.real, IGNORED).flatten()
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="none"
    )
    return (losses.view(batch.real.shape) * batch.weight).sum() / batch.step_weight


def loss_terms(
    forced: Forced, batch: Batch, *, label_smoothing: float, doubly_stochastic: float = 0.0
) -> dict[str, Tensor]:
    """The loss of one batch as weighted, named terms, whose sum is minimised; for a part of a step, its share.

    Args:
        forced: what the model returned for the batch.
        batch: the captions.
        label_smoothing: see `word_loss`.
        doubly_stochastic: lambda of Show, Attend and Tell's equation 14, whose sums over words and cells are both
            divided by the weight of the step's words here; 0 leaves the term out.
    """
    terms = {"words": word_loss(forced.logits, batch, label_smoothing)}
    if doubly_stochastic and forced.attention is not None:
        attention = forced.attention * batch.real[..., None]
        penalty = doubly_stochastic_penalty(attention, batch.packing) * (batch.tokens[:, :, 0] != Tokenizer.pad)
        terms["attention"] = doubly_stochastic * (penalty * batch.weight).sum() / batch.step_weight
    return terms


def choice_terms(
    forced: Forced, choices: Choices, batch: Batch, *, reinforce: float, entropy: float
) -> dict[str, Tensor]:
    """Hard attention's part of the loss: Show, Attend and Tell's learning rule at the end of section 4.1.

    A choice of a cell is rewarded by the log-probabilities of the words from its own on, each minus the baseline: the
    choice has no influence on earlier words, and without them the gradient has the same mean and less noise.

    Args:
        forced: what the model returned for the batch.
        choices: the model's choices; their baseline is the rule's b.
        batch: the captions.
        reinforce: lambda_r, the weight of the rewards.
        entropy: lambda_e, the weight of the distributions' entropy, to keep it high.
    """
    counts = batch.real & choices.drawn  # [B, P]
    with torch.no_grad():
        log_probs = -F.cross_entropy(forced.logits.float().mT, batch.targets, reduction="none")  # of the words, [B, P]
        gains = batch.packing.unpack(torch.where(counts, log_probs - choices.baseline, 0.0))  # [B, K, T]
        rewards = batch.packing.pack(gains.flip(-1).cumsum(-1).flip(-1))
        if counts.any():
            weights = batch.weight.expand_as(counts)[counts]
            mean = (log_probs[counts] * weights).sum() / weights.sum()
            choices.baseline.lerp_(mean.to(choices.baseline), 0.1)  # b = 0.9 b + 0.1 log p
    return {
        "choices": -reinforce * ((rewards * choices.log_probs * batch.weight)[counts].sum() / batch.step_weight),
        "entropy": -entropy * ((choices.entropy * batch.weight)[counts].sum() / batch.step_weight),
    }
