"""The cross-entropy stage: the model learns to say each next word of people's captions, the words before it given."""

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from showtell.models.captioning_model import CaptioningModel
from showtell.training.augmentation import Augmentation
from showtell.training.batches import Batch
from showtell.training.losses import choice_terms, loss_terms, with_own_words


class CrossEntropy(BaseModel):
    """A stage of a recipe. Learning rates rise over the warm-up and fall along a cosine to nearly nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cross_entropy"] = "cross_entropy"
    epochs: int = Field(20, gt=0, description="passes over the training images, at most")
    batch_images: int = Field(20, gt=0, description="B, images in a batch; each comes with its captions")
    captions_per_image: int = Field(
        5, gt=0, description="K at most; a random choice of an image's captions if it has more"
    )
    learning_rate: float = Field(1e-3, gt=0, description="of the decoder, at its highest")
    encoder_stages: int = Field(
        0, ge=0, description="how many of the encoder's last stages learn; 0 uses cached features"
    )
    encoder_learning_rate: float = Field(1e-5, gt=0, description="of those stages, at its highest")
    augmentation: Augmentation = Field(
        Augmentation(), description="random changes of the photos; where the encoder does not learn, flip alone"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on matrices; biases and gains have none")
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over the vocabulary")
    doubly_stochastic: float = Field(0.0, ge=0, description="weight of the attention penalty (Xu et al., equation 14)")
    reinforce: float = Field(1.0, ge=0, description="hard attention: weight of the choices' rewards (section 4.1)")
    entropy: float = Field(0.01, ge=0, description="hard attention: weight of the choices' entropy (section 4.1)")
    scheduled_sampling: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the words replaced by the model's own, reached at the last epoch",
    )
    average: float = Field(0.0, ge=0, lt=1, description="decay a step of the weights' moving average; 0 keeps none")
    patience: int | None = Field(None, gt=0, description="stop after so many epochs without a better validation score")

    @model_validator(mode="after")
    def _grids_cannot_be_augmented(self) -> Self:
        if self.augmentation != Augmentation(flip=self.augmentation.flip) and not self.encoder_stages:
            raise ValueError(
                "augmentation changes live photos, and encoder_stages 0 uses cached features; set it over 0, "
                "or flip alone, for which mirrored photos are cached too"
            )
        return self

    def learning_rate_share(self, done: float) -> float:
        """Which part of the highest learning rate holds when `done` (0..1) of the stage has passed."""
        if done < self.warmup:
            return (done + 1e-3) / (self.warmup + 1e-3)  # the very first step counts too
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def averaged(self, average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
        """The moving average after `count` steps; young averages forget faster, so they hold no untrained weights."""
        decay = min(self.average, (1 + float(count)) / (10 + float(count)))
        return average.lerp(weight, 1 - decay)

    def terms(self, model: CaptioningModel, inputs: Tensor, batch: Batch, done: float) -> dict[str, Tensor]:
        """The loss terms of a batch.

        Args:
            model: in training mode.
            inputs: the images or their grids, as `CaptioningModel.forward` takes them.
            batch: the captions.
            done: how much of the stage has passed, 0..1.
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
        if forced.choices is None:
            return terms
        baseline = model.decoder.baseline
        return terms | choice_terms(
            forced, forced.choices, batch, baseline, reinforce=self.reinforce, entropy=self.entropy
        )


def parameter_groups(model: CaptioningModel, stage: CrossEntropy) -> list[dict[str, object]]:
    """AdamW's groups: decoder and encoder with a learning rate each, matrices with weight decay and the rest without.

    Sets which of the encoder's parameters learn.
    """
    model.encoder.train_last(stage.encoder_stages)
    groups: list[dict[str, object]] = []
    for module, learning_rate in (
        (model.decoder, stage.learning_rate),
        (model.encoder, stage.encoder_learning_rate),
    ):
        learning = [p for p in module.parameters() if p.requires_grad]
        for decay, chosen in (
            (stage.weight_decay, [p for p in learning if p.ndim > 1]),
            (0.0, [p for p in learning if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": learning_rate, "highest": learning_rate, "weight_decay": decay})
    return groups
