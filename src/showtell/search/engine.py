"""The one question that search asks: given these hypotheses, which words may come next?

An engine holds weights and nothing else. What it knows about the images is `Memory`, what it knows about the
hypotheses is `State`; search passes both in and out without looking inside. Axis 0 of every array is the
image, axis 1 of every array of a State is the hypothesis, so that `gather` and `select` below are all the
reordering that any decoder needs.

Letters: B images, K hypotheses of an image, V words in the vocabulary, N cells of the encoder's grid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

Memory = Mapping[str, Any]
"""What an engine knows about the images: arrays `[B, ...]`, shared by each image's K hypotheses."""

State = Mapping[str, Any]
"""What an engine knows about the hypotheses: arrays `[B, K, ...]`."""


@dataclass(frozen=True)
class Proposals:
    """The `top` most likely next words of every hypothesis, the most likely first.

    Attributes:
        ids: `[B, K, top]` int64.
        log_probs: `[B, K, top]` float32, natural; normalised over V before the cut to `top`.
        attention: `[B, K, N]` float32, where the model looks for its next word; None if the model has none,
            and it may be None unless `start` was asked for attention.
    """

    ids: IntArray
    log_probs: FloatArray
    attention: FloatArray | None = None


class Engine(Protocol):
    """What captioning needs from a model. NumPy arrays go in and come out, whatever is used inside."""

    @property
    def batches_at_a_time(self) -> int:
        """How many batches, each on its own thread of the caller, keep all cores busy."""
        ...

    @property
    def arithmetic(self) -> str | None:
        """The arithmetic, by which captions may differ, such as "openvino bfloat16"; None for PyTorch."""
        ...

    def encode(self, images: FloatArray) -> Memory:
        """Read float32 images `[B, 3, S, S]`: once per image."""
        ...

    def memory_from_grid(self, grid: FloatArray) -> Memory:
        """Read the encoder's features `[B, N, D]` from a cache: `encode` without the encoder."""
        ...

    def start(self, memory: Memory, attention: bool = False) -> State:
        """Begin one empty hypothesis per image: a State of arrays `[B, 1, ...]`."""
        ...

    def step(
        self, memory: Memory, state: State, tokens: IntArray, parents: IntArray | None, top: int
    ) -> tuple[Proposals, State]:
        """Add a word to every hypothesis and propose the next.

        Args:
            memory: from `encode`, arrays `[B, ...]`.
            state: from `start` or the last `step`, arrays `[B, K', ...]`.
            tokens: `[B, K]`, the word that each hypothesis says; `<start>` in the first step.
            parents: `[B, K]`, the row of `state` that each hypothesis continues; rows may repeat or be left out.
                None: every row continues as it is (K = K').
            top: how many words to propose for each hypothesis, 1 to V.
        """
        ...

    def select(self, memory: Memory, state: State, images: IntArray) -> tuple[Memory, State]:
        """Keep the images at these places `[B']` of the batch."""
        ...

    def batch_size(self, memory: Memory) -> int:
        """Return B, the number of images in a memory."""
        ...


class Vocabulary(Protocol):
    """What captioning needs from a tokenizer."""

    @property
    def pad(self) -> int:
        """Return the id of `<pad>`."""
        ...

    @property
    def start(self) -> int:
        """Return the id of `<start>`."""
        ...

    @property
    def end(self) -> int:
        """Return the id of `<end>`."""
        ...

    @property
    def unk(self) -> int:
        """Return the id of `<unk>`."""
        ...

    def __len__(self) -> int: ...

    def id_of(self, word: str) -> int | None:
        """Return the id of a word, or None if it has no id of its own."""
        ...

    def words(self, caption: str) -> list[str]:
        """Return the words of a text as captions spell them, known or not."""
        ...

    def spell(self, text: str) -> tuple[int, ...] | None:
        """Return the ids of a caption that begins with this text, without special ones; None if they can't spell it."""
        ...

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return the ways in which captions spell a word, at their beginning and inside; empty if they can't."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of ids joined by spaces, without the special ones; pieces of a word are put together."""
        ...

    def to_json(self) -> str:
        """Return the whole vocabulary as text: two vocabularies with the same text give the same captions."""
        ...


def gather(state: State, parents: Any) -> dict[str, Any]:
    """Return the state `[B, K, ...]` that continues the rows `parents` `[B, K]` of `state` `[B, K', ...]`.

    Works on any arrays with NumPy's indexing, PyTorch's too; with `parents` None nothing is copied.
    """
    if parents is None:
        return dict(state)
    images = np.arange(len(parents))[:, None]
    return {name: array[images, parents] for name, array in state.items()}


def select(arrays: Mapping[str, Any], images: Any) -> dict[str, Any]:
    """Return a memory's or a state's arrays for the images at these places `[B']` of the batch."""
    return {name: array[images] for name, array in arrays.items()}
