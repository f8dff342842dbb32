"""Several models that caption together: the probabilities of their next words are averaged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showtell.search.engine import Engine, FloatArray, IntArray, Memory, Proposals, State


class EnsembleEngine:
    """An engine of several engines that share a vocabulary and read the same images.

    Memory and state hold all members' arrays, under names that begin with the member's number.
    Attention is the mean of the members' attention, or None unless all have it, over the same number of cells.

    Args:
        engines: the members, at least one.
        vocabulary_size: V of each of them.
    """

    def __init__(self, engines: Sequence[Engine], vocabulary_size: int) -> None:
        self.engines = tuple(engines)
        self.vocabulary_size = vocabulary_size

    @property
    def batches_at_a_time(self) -> int:
        """The answer of the member that uses the most cores."""
        return min(engine.batches_at_a_time for engine in self.engines)

    @property
    def arithmetic(self) -> str | None:
        """The arithmetic of the members, each once."""
        return " + ".join(sorted({engine.arithmetic for engine in self.engines if engine.arithmetic})) or None

    def encode(self, images: FloatArray) -> dict[str, Any]:
        return _joined([engine.encode(images) for engine in self.engines])

    def memory_from_grid(self, grid: FloatArray) -> dict[str, Any]:
        """See `Engine`; the members have the same encoder."""
        return _joined([engine.memory_from_grid(grid) for engine in self.engines])

    def start(self, memory: Memory, attention: bool = False) -> dict[str, Any]:
        memories = self._parted(memory)
        return _joined([each.start(one, attention) for each, one in zip(self.engines, memories, strict=True)])

    def step(
        self, memory: Memory, state: State, tokens: IntArray, parents: IntArray | None, top: int
    ) -> tuple[Proposals, dict[str, Any]]:
        """See `Engine`. The members propose the whole vocabulary, as the mean can rank any word first."""
        answers = [
            engine.step(its_memory, its_state, tokens, parents, self.vocabulary_size)
            for engine, its_memory, its_state in zip(
                self.engines, self._parted(memory), self._parted(state), strict=True
            )
        ]
        proposals = [answer for answer, _ in answers]
        log_probs = np.logaddexp.reduce([_by_word(each) for each in proposals]) - np.log(len(proposals))  # [B, K, V]
        ids = _best(log_probs, top)
        best = np.take_along_axis(log_probs, ids, axis=2).astype(np.float32)
        return Proposals(ids, best, _mean_attention(proposals)), _joined([its_state for _, its_state in answers])

    def select(self, memory: Memory, state: State, images: IntArray) -> tuple[dict[str, Any], dict[str, Any]]:
        selected = [
            engine.select(its_memory, its_state, images)
            for engine, its_memory, its_state in zip(
                self.engines, self._parted(memory), self._parted(state), strict=True
            )
        ]
        return _joined([its_memory for its_memory, _ in selected]), _joined([its_state for _, its_state in selected])

    def batch_size(self, memory: Memory) -> int:
        return self.engines[0].batch_size(self._parted(memory)[0])

    def _parted(self, joined: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each member's arrays under their own names: the inverse of `_joined`."""
        parted: list[dict[str, Any]] = [{} for _ in self.engines]
        for name, array in joined.items():
            number, _, its_name = name.partition(".")
            parted[int(number)][its_name] = array
        return parted


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The members' arrays in one mapping: "h" of the second member is "1.h"."""
    return {f"{number}.{name}": array for number, part in enumerate(parts) for name, array in part.items()}


def _by_word(proposals: Proposals) -> NDArray[np.float32]:
    """Log-probabilities `[B, K, V]` in the vocabulary's order, from proposals of the whole vocabulary."""
    log_probs = np.empty_like(proposals.log_probs)
    np.put_along_axis(log_probs, proposals.ids, proposals.log_probs, axis=2)
    return log_probs


def _best(log_probs: FloatArray, top: int) -> IntArray:
    """The ids `[B, K, top]` of the likeliest words, the likeliest first."""
    if top < log_probs.shape[2]:
        ids = np.argpartition(-log_probs, top - 1, axis=2)[:, :, :top]
        order = np.argsort(-np.take_along_axis(log_probs, ids, axis=2), axis=2, kind="stable")
        return np.take_along_axis(ids, order, axis=2)
    return np.argsort(-log_probs, axis=2, kind="stable")


def _mean_attention(proposals: Sequence[Proposals]) -> NDArray[np.float32] | None:
    """The mean of the members' attention `[B, K, N]`, if all have attention and the same grid."""
    looked = [each.attention for each in proposals if each.attention is not None]
    if len(looked) < len(proposals) or len({each.shape for each in looked}) > 1:
        return None
    mean: NDArray[np.float32] = np.mean(looked, axis=0, dtype=np.float32)
    return mean
