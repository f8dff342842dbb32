"""The cross-entropy stage: the model learns to predict each next word of people's captions from the words before."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from showtell.models.captioning_model import CaptioningModel
from showtell.tokenizer import Tokenizer
from showtell.training.inputs.batches import Batch, Ids
from showtell.training.stages.losses import choice_terms, loss_terms
from showtell.training.stages.stage import Loss, Objective, Stage
from showtell.training.stages.teachers import Teachers


class CrossEntropy(Stage):
    """A stage that learns from people's captions."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over the vocabulary")
    doubly_stochastic: float = Field(0.0, ge=0, description="weight of the attention penalty (Xu et al., equation 14)")
    reinforce: float = Field(1.0, ge=0, description="hard attention: weight of the choices' rewards (section 4.1)")
    entropy: float = Field(0.01, ge=0, description="hard attention: weight of the choices' entropy (section 4.1)")
    scheduled_sampling: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the words that the model's own words replace; it rises to this by the last epoch",
    )
    teachers: tuple[str, ...] = Field((), description="model or run folders to learn from, with the same words")
    specialists: bool = Field(
        False,
        description="each teacher counts for an image by how likely it finds its captions; else all count the same",
    )
    distillation: float = Field(
        0.5, gt=0, le=1, description="share of the teachers' mean in the target, if there are teachers"
    )

    def objective(self, captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer) -> Objective:
        """The loss on people's captions, and on the teachers' probabilities: see `terms`."""
        teachers = Teachers(self.teachers, tokenizer, specialists=self.specialists) if self.teachers else None

        def losses(model: CaptioningModel, inputs: Tensor, batch: Batch, done: float) -> Iterator[Loss]:
            for images in self.parts(batch):
                part = batch.images(images)
                yield Loss(self.terms(model, inputs[images], part, done, teachers), part)

        return losses

    def terms(
        self, model: CaptioningModel, inputs: Tensor, batch: Batch, done: float, teachers: Teachers | None = None
    ) -> dict[str, Tensor]:
        """The loss terms of a batch, or the share of a part of a batch.

        Args:
            model: in training mode.
            inputs: the images or their grids, as `CaptioningModel.forward` takes them.
            batch: the captions.
            done: how much of the stage has passed, 0..1.
            teachers: models whose probabilities are learned, too.
        """
        tokens = batch.tokens
        if self.scheduled_sampling:
            with torch.no_grad():
                first = model(inputs, tokens, batch.packing)
            tokens = with_own_words(batch, first.logits, self.scheduled_sampling * done)
        forced = model(inputs, tokens, batch.packing)
        terms = loss_terms(
            forced, batch, label_smoothing=self.label_smoothing, doubly_stochastic=self.doubly_stochastic
        )
        if teachers is not None:
            expected = teachers.probabilities(model, inputs, batch)
            terms["words"] = (1 - self.distillation) * terms["words"]
            losses = F.cross_entropy(forced.logits[batch.real], expected, reduction="none")
            weight = batch.weight.expand_as(batch.real)[batch.real]
            terms["teachers"] = self.distillation * (losses * weight).sum() / batch.step_weight
        if forced.choices is None:
            return terms
        return terms | choice_terms(forced, forced.choices, batch, reinforce=self.reinforce, entropy=self.entropy)


@torch.no_grad()
def with_own_words(batch: Batch, logits: Tensor, probability: float) -> Tensor:
    """Scheduled sampling (Bengio et al. 2015), for any decoder: the model's own words replace some tokens.

    The model's words are drawn from a first, teacher-forced pass and fed to a second one, as Mihaylova and Martins
    (2019) do for Transformers: two parallel passes instead of one that goes word by word.

    Args:
        batch: the batch.
        logits: the logits of the first pass, `[B, P, V]`.
        probability: the probability that a word is replaced, 0..1.

    Returns:
        Tokens `[B, K, T]`; `<start>` and padding stay.
    """
    chances = logits.float().softmax(-1)
    # The smallest of exponential waiting times draws a word by its probability. [B, P]: the token of step t + 1
    drawn = (chances / torch.empty_like(chances).exponential_()).argmax(-1)
    own = torch.full_like(batch.tokens, -1)
    own[:, :, 1:] = batch.packing.unpack(torch.where(batch.real, drawn, -1), fill=-1)[:, :, :-1]
    replaced = (torch.rand(batch.tokens.shape, device=logits.device) < probability) & (own >= 0)
    still_running = torch.zeros_like(replaced)
    still_running[:, :, 1:] = batch.packing.unpack(batch.real, fill=False)[:, :, 1:]
    return torch.where(replaced & still_running, own, batch.tokens)
