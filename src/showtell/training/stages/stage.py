"""What all stages of a recipe have in common: learning rates, averaging, and the losses of a step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from showtell.models.captioning_model import CaptioningModel
from showtell.tokenizer import Tokenizer
from showtell.training.adapters import last_layers
from showtell.training.inputs.augmentation import Augmentation
from showtell.training.inputs.batches import Batch, Ids


class Loss(NamedTuple):
    """What one step minimises, or the share of a part of a step, and what was measured on the way."""

    terms: dict[str, Tensor]
    """Weighted and named; their sum over all parts is minimised. `words` is the one that the log calls the loss."""
    batch: Batch
    """The captions that the model processed."""
    measures: Mapping[str, float] = MappingProxyType({})
    """For the log only: figures of the whole step, which are averaged over an epoch's captions."""


Objective = Callable[[CaptioningModel, Tensor, Batch, float], Iterator[Loss]]
"""The losses of a model in training mode, one for each part of the batch, to be differentiated before the next one.

It takes a batch's images `[B, 3, S, S]` or grids `[B, N, D]`, its captions, and the share of the stage that has passed,
0..1. The batch is this process's share of a step's images, and may be empty."""


class Stage(BaseModel, ABC):
    """The keys of every stage. Learning rates rise over the warm-up and fall along a cosine to nearly nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    epochs: int = Field(20, gt=0, description="passes over the training images, at most")
    batch_images: int = Field(
        20, gt=0, description="B, images in a step, over all processes; each comes with its captions"
    )
    accumulate: int = Field(
        1, gt=0, description="how many parts a batch is computed in, one after the other: the same step in less memory"
    )
    captions_per_image: int = Field(
        5, gt=0, description="K, the most captions used of an image; if it has more, a random choice"
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the decoder")
    words_learning_rate: float | None = Field(
        None,
        gt=0,
        description="highest learning rate of the words' embeddings and output weights; by default that of the decoder",
    )
    decoder_layers: int | None = Field(
        None,
        gt=0,
        description="how many of a Transformer decoder's last layers learn, and nothing else; by default all of it",
    )
    lora: int = Field(
        0,
        ge=0,
        description="rank of the adapters (LoRA) that learn instead of the weights of those layers; 0: no adapters, "
        "the weights themselves learn",
    )
    encoder_stages: int = Field(
        0, ge=0, description="how many of the encoder's last stages are trained; 0 uses cached features"
    )
    encoder_learning_rate: float = Field(1e-5, gt=0, description="highest learning rate of those stages")
    augmentation: Augmentation = Field(
        Augmentation(), description="random changes of the photos; where the encoder does not learn, only flip"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on matrices; biases and gains have none")
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    average: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights in each step; 0 keeps no average"
    )
    patience: int | None = Field(
        None, gt=0, description="stop after this many epochs without a better validation score"
    )
    best_epochs: int = Field(
        0, ge=0, description="at the end of the stage, also try the mean weights of this many best epochs; 0 does not"
    )

    @model_validator(mode="after")
    def _grids_cannot_be_augmented(self) -> Self:
        if self.augmentation != Augmentation(flip=self.augmentation.flip) and not self.encoder_stages:
            raise ValueError(
                "augmentation changes live photos, and encoder_stages 0 uses cached features; set it over 0, "
                "or use only flip, for which mirrored photos are cached too"
            )
        return self

    @model_validator(mode="after")
    def _tables_learn(self) -> Self:
        if self.words_learning_rate is not None and (self.lora or self.decoder_layers):
            key = "lora" if self.lora else "decoder_layers"
            raise ValueError(f"words_learning_rate: with {key} the tables of words do not learn; leave one of them out")
        return self

    @field_validator("best_epochs")
    @classmethod
    def _one_is_no_mean(cls, value: int) -> int:
        if value == 1:
            raise ValueError("the mean of one epoch's weights is that epoch; use 2 or more, or 0")
        return value

    @abstractmethod
    def objective(self, captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer) -> Objective:
        """What the stage minimises in an epoch.

        Args:
            captions: the captions of all training images in this epoch, which a batch's `rows` number.
            tokenizer: what made them.
        """

    def parts(self, batch: Batch) -> list[slice]:
        """Which images of a batch are computed together."""
        return [slice(part, None, self.accumulate) for part in range(min(self.accumulate, len(batch.rows)))]

    def captions_computed(self, captions: int) -> int:
        """How many captions are computed for an image that has `captions` captions."""
        return min(captions, self.captions_per_image)

    def learning_rate_factor(self, done: float) -> float:
        """The factor on the highest learning rate when `done` (0..1) of the stage has passed."""
        if done < self.warmup:
            return (done + 1e-3) / (self.warmup + 1e-3)  # the very first step counts too
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def average_into(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        weights: tuple[Tensor, ...] | list[Tensor],
        count: Tensor | int,
    ) -> None:
        """The moving averages after `count` steps; they forget faster at first, so they hold no untrained weights."""
        decay = min(self.average, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, weights, 1 - decay)


def parameter_groups(model: CaptioningModel, stage: Stage, vocabulary: int) -> list[dict[str, object]]:
    """AdamW's groups: word tables, the rest of the decoder, and the encoder, each with a learning rate of its own.

    Matrices have weight decay; biases and gains have none. Tables with a row for each word have none either: otherwise
    what a model knows about words that its new captions don't use would fade.

    It also sets which of the model's parameters learn; the others are in no group. With `lora`, the model is an adapted
    one (`adapters.py`), and in its decoder only the adapters learn.

    Raises:
        UsageError: the encoder or the decoder has fewer parts than should learn.
    """
    model.encoder.train_last(stage.encoder_stages)
    if not stage.lora:
        model.decoder.requires_grad_(stage.decoder_layers is None)
        for _, layer in last_layers(model.decoder, stage.decoder_layers):
            layer.requires_grad_(True)
    learning = [p for p in model.decoder.parameters() if p.requires_grad]
    tables = [p for p in learning if p.shape[:1] == (vocabulary,)]
    others = [p for p in learning if p.shape[:1] != (vocabulary,)]
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = []
    for parameters, rate, decay in (
        (tables, stage.words_learning_rate or stage.learning_rate, 0.0),
        ([p for p in others if p.ndim > 1], stage.learning_rate, stage.weight_decay),
        ([p for p in others if p.ndim <= 1], stage.learning_rate, 0.0),
        ([p for p in encoder if p.ndim > 1], stage.encoder_learning_rate, stage.weight_decay),
        ([p for p in encoder if p.ndim <= 1], stage.encoder_learning_rate, 0.0),
    ):
        if parameters:
            groups.append({"params": parameters, "lr": rate, "highest": rate, "weight_decay": decay})
    return groups
