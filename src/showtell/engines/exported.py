"""The engine interface for exported models: captions without PyTorch, whatever runs the graphs.

The graphs are written by `showtell export`. Their inputs and outputs have the names "memory.NAME", "state.NAME" and,
for the state after a step, "next.NAME". In this engine the arrays of memory and state keep those names, so a step
passes them to the graph as they are. Memory also carries the first state, as the same graph computes both.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from showtell.errors import UsageError
from showtell.search.engine import Proposals, select

ENCODED_TOGETHER = 4  # images; with 16 the activations leave the processor's cache, and it takes 1.3 times as long

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_BATCHES = 8  # captioned at a time: with more, the Python code of search waits for the GIL, and memory grows

Arrays = Mapping[str, NDArray[Any]]


class Graph(Protocol):
    """One of the three graphs, ready to run on any number of threads at once."""

    def __call__(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name, owned by the caller; `feed` may hold more than its inputs."""
        ...


class ExportedEngine:
    """Runs a model's three graphs; memory and state are NumPy arrays, passed in and out.

    Args:
        encoder: images -> grid.
        starter: grid -> memory and the first state.
        stepper: one more word.
        growing: the arrays of state that grow with each word, and the axis along which they grow.
        max_words: how many words the model has positions for.
        threads: how many threads share an operation; None uses one per core.
        arithmetic: the arithmetic, by which captions may differ: "onnx", "openvino bfloat16".
    """

    def __init__(
        self,
        encoder: Graph,
        starter: Graph,
        stepper: Graph,
        *,
        growing: Mapping[str, int],
        max_words: int,
        threads: int | None,
        arithmetic: str,
    ) -> None:
        self.encoder, self.starter, self.stepper = encoder, starter, stepper
        self.growing, self.max_words = growing, max_words
        self.batches_at_a_time = batches_at_a_time(threads)
        self.arithmetic = arithmetic

    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images `[B, 3, S, S]` as `images.prepare` makes them -> the encoder's grid `[B, N, D]`."""
        batches = [images[first : first + ENCODED_TOGETHER] for first in range(0, len(images), ENCODED_TOGETHER)]
        return np.concatenate([self.encoder({"images": batch})["grid"] for batch in batches])

    def encode(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Images `[B, 3, S, S]` -> memory."""
        return self.memory_from_grid(self.features(images))

    def memory_from_grid(self, grid: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        return self.starter({"grid": np.asarray(grid, np.float32)})

    def start(self, memory: Arrays, attention: bool = False) -> dict[str, NDArray[Any]]:
        """The state before the first word, one row per image; every step returns attention, requested or not."""
        return {name: array for name, array in memory.items() if name.startswith("state.")}

    def step(
        self,
        memory: Arrays,
        state: Arrays,
        tokens: NDArray[np.int64],
        parents: NDArray[np.int64] | None,
        top: int,
    ) -> tuple[Proposals, dict[str, NDArray[Any]]]:
        """One more word for each hypothesis: the `top` likeliest next words of each, and the new state.

        Raises:
            UsageError: the caption is longer than the model has positions for.
        """
        for name, axis in self.growing.items():
            if state[name].shape[axis] >= self.max_words:
                raise UsageError(
                    f"This model has positions for captions of at most {self.max_words} words.",
                    "Lower max_words.",
                )
        if parents is None:
            parents = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
        answer = self.stepper({**memory, **state, "tokens": tokens, "parents": parents, "top": np.array(top)})
        proposals = Proposals(answer.pop("ids"), answer.pop("log_probs"), answer.pop("attention", None))
        return proposals, {name.replace("next", "state", 1): array for name, array in answer.items()}

    def select(
        self, memory: Arrays, state: Arrays, images: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Only the given images of the batch."""
        return select(memory, images), select(state, images)

    def batch_size(self, memory: Arrays) -> int:
        return len(next(iter(memory.values())))


def batches_at_a_time(threads: int | None) -> int:
    """How many batches keep all cores busy if each uses `threads` threads; one if a batch uses all cores."""
    return max(1, min(CORES // (threads or CORES), MOST_BATCHES))
