"""The interface of every decoder, and the letters of its shapes.

    B   images in a batch                                  D   width of the grid's features
    K   captions (or hypotheses) of an image               A   attention width
    T   tokens of a caption, `<start>` included            H   hidden width
    P   packed positions: those of K x T that are          E   width of a word's embedding
        computed (`packing.py`)                            V   words in the vocabulary
    N   cells of the encoder's grid

Axis 0 of every array is the image, and axis 1 of a state's arrays the hypothesis. An image is encoded once for its K
captions, and none of its arrays is ever repeated for each caption.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from showtell.models.packing import Packing

Arrays = Mapping[str, Tensor]
"""A memory, or a state."""


class DecoderConfig(BaseModel):
    """A decoder's sizes and options, as recipes and bundles hold them; a decoder adds its own fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="which decoder")


class Choices(NamedTuple):
    """Hard attention's random choices of a cell, for REINFORCE (`training/stages/losses.py`)."""

    log_probs: Tensor
    """The log-probability `[B, P]` of the chosen cell."""
    drawn: Tensor
    """Bool `[B, 1]`: False for images with soft attention, where nothing was chosen."""
    entropy: Tensor
    """The entropy `[B, P]`, in nats, of the distribution from which the cell was drawn."""
    baseline: Tensor
    """The decoder's moving average of a word's log-probability, a scalar; the loss updates it in place."""


class Forced(NamedTuple):
    """What teacher forcing returns."""

    logits: Tensor
    """`[B, P, V]`"""
    attention: Tensor | None = None
    """`[B, P, N]`, sums to 1 over N; None from a decoder whose `attends_in_training` is False."""
    choices: Choices | None = None
    """The choices of hard attention."""


class Decoder(nn.Module, ABC):
    """Grids in, logits of captions out. A subclass is built from a config, D and V, with fresh weights.

    Its annotation of `config` says which config class reads a recipe's `decoder`.
    """

    config: DecoderConfig
    attends_in_training: ClassVar[bool] = False
    """Whether `forced` returns attention, which a loss may use."""
    layered: ClassVar[bool] = False
    """Whether it consists of `DecoderLayer`s (`transformer.py`), so that only the last ones, or adapters, may learn."""

    @property
    def max_words(self) -> int | None:
        """The longest caption that there are positions for; None if there is no limit."""
        return None

    @abstractmethod
    def memory(self, grid: Tensor) -> Arrays:
        """What every step needs of an image, `[B, ...]`, from its grid `[B, N, D]`: computed once."""

    @abstractmethod
    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word, `[B, 1, ...]`."""

    @abstractmethod
    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor | None, Arrays]:
        """One more word for K hypotheses of each image.

        Args:
            memory: the image.
            state: `[B, K, ...]`, one row per hypothesis.
            tokens: the last word of each, int64 `[B, K]`.

        Returns:
            Logits of the next word `[B, K, V]`; attention `[B, K, N]`, float32, or None from a decoder without; and the
            state after the word.
        """

    @abstractmethod
    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """Teacher forcing: logits after every word of K captions per image, given the words.

        Args:
            memory: the image.
            tokens: `<start>` and the words, int64 `[B, K, T]`, longest captions first.
            packing: the positions to compute.
        """

    def forward(self, memory: Arrays, tokens: Tensor) -> Tensor:
        """Logits `[B, K, T, V]` for tokens `[B, K, T]`: `forced` on all positions."""
        packing = Packing.full(*tokens.shape[1:])
        return packing.unpack(self.forced(memory, tokens, packing).logits)
