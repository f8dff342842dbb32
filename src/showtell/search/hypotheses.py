"""Hypotheses: cheap back-pointers while search runs; at the end, captions traced back through them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from showtell.search.engine import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Hypothesis:
    """One caption that search found.

    Attributes:
        tokens: T ids: no `<start>`; `<end>` where the caption ended by itself.
        log_prob: the model's total log-probability of the tokens, natural; without temperature and rules.
        token_log_probs: T log-probabilities, which `log_prob` sums.
        score: what the caption was ranked by: `log_prob / T ** length_penalty`.
        finished: False when it was cut off (at `max_words`, or because the rules allowed no further word).
        attention: `[T, N]` float32, where the model looked for each token; None unless asked for.
    """

    tokens: tuple[int, ...]
    log_prob: float
    token_log_probs: tuple[float, ...]
    score: float
    finished: bool
    attention: FloatArray | None = None


@dataclass(frozen=True)
class _Layer:
    """One step: row r of image i says `tokens[place[i], r]` after row `parents[place[i], r]` of the step before."""

    place: IntArray  # [B]: the place of each image of the whole batch in the step's batch
    tokens: IntArray  # [B', R]
    parents: IntArray  # [B', R]
    log_probs: FloatArray  # [B', R]
    attention: FloatArray | None  # [B', K, N], by row of the previous layer


class Paths:
    """Every hypothesis of a batch as back-pointers: a hypothesis of T tokens is a row of layer T - 1.

    Nothing is copied from step to step, and images that have left the batch can still be traced.
    """

    def __init__(self, images: int) -> None:
        self._layers: list[_Layer] = []
        self._place = np.arange(images)

    def add(self, tokens: IntArray, parents: IntArray, log_probs: FloatArray, attention: FloatArray | None) -> None:
        """Add a layer: rows `[B', R]` of the step's images, and their parents' attention `[B', K, N]`."""
        self._layers.append(_Layer(self._place, tokens, parents, log_probs, attention))

    def select(self, images: IntArray) -> None:
        """From now on, layers hold only these images `[B']` (numbered as in the whole batch)."""
        self._place = self._place.copy()
        self._place[images] = np.arange(len(images))

    def words(self, images: IntArray, rows: int) -> IntArray:
        """Return what the first `rows` rows of the last layer say, `[B', rows, t]`."""
        length = len(self._layers)
        said = np.empty((len(images) * rows, length), dtype=np.int64)
        every_row = np.tile(np.arange(rows), len(images))
        lengths = np.full(len(every_row), length)
        for t, which, layer, at in self._back(images.repeat(rows), every_row, lengths):
            said[which, t] = layer.tokens[at]
        return said.reshape(len(images), rows, length)

    def hypotheses(
        self, images: IntArray, rows: IntArray, lengths: IntArray, scores: FloatArray, finished: BoolArray
    ) -> list[Hypothesis]:
        """Trace H hypotheses, given as five arrays `[H]`, back to their beginnings."""
        longest = int(lengths.max(initial=0))
        tokens = np.zeros((len(images), longest), dtype=np.int64)
        log_probs = np.zeros((len(images), longest))
        looked = self._layers[0].attention if self._layers else None
        attention = None if looked is None else np.zeros((len(images), longest, looked.shape[2]), looked.dtype)
        for t, which, layer, at in self._back(images, rows, lengths):
            tokens[which, t] = layer.tokens[at]
            log_probs[which, t] = layer.log_probs[at]
            if attention is not None and layer.attention is not None:
                attention[which, t] = layer.attention[at[0], layer.parents[at]]
        return [
            Hypothesis(
                tokens=tuple(tokens[h, :length].tolist()),
                log_prob=float(log_probs[h, :length].sum()),
                token_log_probs=tuple(log_probs[h, :length].tolist()),
                score=float(scores[h]),
                finished=bool(finished[h]),
                attention=None if attention is None else attention[h, :length].copy(),
            )
            for h, length in enumerate(lengths.tolist())
        ]

    def _back(
        self, images: IntArray, rows: IntArray, lengths: IntArray
    ) -> Iterator[tuple[int, IntArray, _Layer, tuple[IntArray, IntArray]]]:
        """Walk from the last step to the first: t, the hypotheses that reach it, its layer, where in it."""
        rows = rows.copy()
        for t in range(int(lengths.max(initial=0)) - 1, -1, -1):
            which = np.flatnonzero(lengths > t)
            layer = self._layers[t]
            at = (layer.place[images[which]], rows[which])
            yield t, which, layer, at
            rows[which] = layer.parents[at]


class Best:
    """The best few captions of every image of a batch so far, best first."""

    def __init__(self, images: int, places: int) -> None:
        self.scores = np.full((images, places), -np.inf)  # [B, places]; minus infinity: no caption
        self.rows = np.zeros((images, places), dtype=np.int64)
        self.lengths = np.zeros((images, places), dtype=np.int64)

    def add(self, images: IntArray, scores: FloatArray, length: int, first_row: int = 0) -> None:
        """Offer captions of `length` tokens: rows `first_row` and up of their layer, with scores `[B', R]`.

        A score of minus infinity offers nothing. Among equals, the earlier offer comes first.
        """
        count = scores.shape[1]
        offered = np.broadcast_to(np.arange(first_row, first_row + count), scores.shape)
        all_scores = np.concatenate([self.scores[images], scores], axis=1)
        all_rows = np.concatenate([self.rows[images], offered], axis=1)
        all_lengths = np.concatenate([self.lengths[images], np.full(scores.shape, length)], axis=1)
        best = np.argsort(-all_scores, axis=1, kind="stable")[:, : self.scores.shape[1]]
        image = np.arange(len(images))[:, None]
        self.scores[images] = all_scores[image, best]
        self.rows[images] = all_rows[image, best]
        self.lengths[images] = all_lengths[image, best]


def captions(paths: Paths, finished: Best, unfinished: Best, num: int) -> list[list[Hypothesis]]:
    """Return up to `num` hypotheses of every image: the finished ones, best first, then the others, best first."""
    scores = np.concatenate([finished.scores, unfinished.scores], axis=1)
    ended = np.arange(scores.shape[1]) < finished.scores.shape[1]
    there = scores > -np.inf
    images, places = np.nonzero(there & (there.cumsum(axis=1) <= num))
    hypotheses = paths.hypotheses(
        images,
        np.concatenate([finished.rows, unfinished.rows], axis=1)[images, places],
        np.concatenate([finished.lengths, unfinished.lengths], axis=1)[images, places],
        scores[images, places],
        ended[places],
    )
    found: list[list[Hypothesis]] = [[] for _ in scores]
    for image, hypothesis in zip(images.tolist(), hypotheses, strict=True):
        found[image].append(hypothesis)
    return found
