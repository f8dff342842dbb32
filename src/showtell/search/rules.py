"""What a caption may not say: small rules that lower the log-probabilities of proposed words.

A rule says beforehand how many words it can lower for one hypothesis, so that search asks the engine for
enough proposals: with `needed + most_lowered`, at least `needed` proposals are left as they were, and
whatever the cut hid ranks below them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from showtell.errors import UsageError
from showtell.search.engine import BoolArray, FloatArray, IntArray, Proposals, Vocabulary
from showtell.search.options import SearchOptions


@dataclass(frozen=True)
class Past:
    """What the hypotheses have said so far.

    Attributes:
        length: t, words of each hypothesis.
        words: call it for the words themselves, `[B, K, t]`; rules that don't read them save the tracing.
    """

    length: int
    words: Callable[[], IntArray]


class Rule(Protocol):
    """Lowers the log-probabilities of some words, to minus infinity where it forbids them."""

    def most_lowered(self, length: int) -> int:
        """Return the most words that the rule can lower for one hypothesis of `length` words."""
        ...

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        """Return the log-probabilities `[B, K, top]` of the words `ids`; never change them in place."""
        ...


class Banned:
    """Some words are never said."""

    def __init__(self, ids: set[int], vocabulary_size: int) -> None:
        self._banned: BoolArray = np.zeros(vocabulary_size, dtype=bool)  # [V]
        self._banned[list(ids)] = True
        self._count = len(ids)

    def most_lowered(self, length: int) -> int:
        return self._count

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        return np.where(self._banned[ids], -np.inf, log_probs)


@dataclass(frozen=True)
class MinimumLength:
    """No caption ends before it has `words` words."""

    words: int
    end: int

    def most_lowered(self, length: int) -> int:
        return int(length < self.words)

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        if past.length >= self.words:
            return log_probs
        return np.where(ids == self.end, -np.inf, log_probs)


@dataclass(frozen=True)
class NoRepeatedNgram:
    """No run of `n` words comes twice in a caption."""

    n: int
    vocabulary_size: int

    def most_lowered(self, length: int) -> int:
        """See `Rule`: each run that was said can forbid the word that ended it."""
        return max(0, length - self.n + 1)

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        if past.length < self.n:
            return log_probs
        words = past.words()  # [B, K, t]
        runs = np.lib.stride_tricks.sliding_window_view(words, self.n, axis=2)  # [B, K, t - n + 1, n]
        last = words[:, :, None, past.length - self.n + 1 :]  # [B, K, 1, n - 1]: none when n is 1
        images, rows, places = np.nonzero((runs[..., :-1] == last).all(axis=3))
        forbidden = np.zeros((*ids.shape[:2], self.vocabulary_size), dtype=bool)  # [B, K, V]
        forbidden[images, rows, runs[images, rows, places, -1]] = True
        return np.where(np.take_along_axis(forbidden, ids, axis=2), -np.inf, log_probs)


@dataclass(frozen=True)
class ForcedPrefix:
    """Every caption begins with these words."""

    ids: tuple[int, ...]
    vocabulary_size: int

    def most_lowered(self, length: int) -> int:
        """See `Rule`: all words but one, which may be the least likely."""
        return self.vocabulary_size if length < len(self.ids) else 0

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        if past.length >= len(self.ids):
            return log_probs
        return np.where(ids == self.ids[past.length], log_probs, -np.inf)


class Required:
    """No caption ends before it has said these words. Beam search makes room for those that say them."""

    def __init__(self, ids: set[int], end: int, vocabulary_size: int) -> None:
        self.ids: IntArray = np.array(sorted(ids), dtype=np.int64)  # [C]
        self._end = end
        self._vocabulary_size = vocabulary_size

    def missing(self, past: Past) -> BoolArray:
        """Return which of the words each hypothesis has not said yet, `[B, K, C]`."""
        said: BoolArray = (past.words()[..., None] == self.ids).any(axis=2)  # over [B, K, t, C]
        return ~said

    def most_lowered(self, length: int) -> int:
        """See `Rule`: only `<end>`, but all words are asked for, since a missing one may be the least likely."""
        return self._vocabulary_size

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        incomplete = self.missing(past).any(axis=2, keepdims=True)  # [B, K, 1]
        return np.where(incomplete & (ids == self._end), -np.inf, log_probs)


def rules_for(options: SearchOptions, vocabulary: Vocabulary) -> list[Rule]:
    """Return the rules that the options ask for; `<pad>` and `<start>` are never said.

    Raises:
        UsageError: the vocabulary lacks a word of the prefix or a required one.
    """
    banned = {vocabulary.pad, vocabulary.start}
    if not options.allow_unknown:
        banned.add(vocabulary.unk)
    banned.update(id for word in options.banned_words if (id := vocabulary.id_of(word)) is not None)
    rules: list[Rule] = [Banned(banned, len(vocabulary))]
    if options.min_words:
        rules.append(MinimumLength(options.min_words, vocabulary.end))
    if options.no_repeat_ngram:
        rules.append(NoRepeatedNgram(options.no_repeat_ngram, len(vocabulary)))
    if options.prefix:
        rules.append(ForcedPrefix(tuple(_id(word, vocabulary) for word in options.prefix), len(vocabulary)))
    if options.require:
        never = banned | {vocabulary.end}
        required = {_id_of_required(word, vocabulary, never) for word in options.require}
        rules.append(Required(required, vocabulary.end, len(vocabulary)))
    return rules


def _id(word: str, vocabulary: Vocabulary) -> int:
    found = vocabulary.id_of(word)
    if found is None:
        raise UsageError(f"prefix has the word {word!r}, which this model never says.", "Choose another word.")
    return found


def _id_of_required(word: str, vocabulary: Vocabulary, never: set[int]) -> int:
    found = vocabulary.id_of(word)
    if found is None or found in never:
        raise UsageError(
            f"require has the word {word!r}, which this model does not say as one token.", "Choose another word."
        )
    return found


def most_lowered(rules: Sequence[Rule], length: int) -> int:
    """Return m, the most words that all the rules can lower for one hypothesis of `length` words."""
    return sum(rule.most_lowered(length) for rule in rules)


def lowered(rules: Sequence[Rule], past: Past, proposals: Proposals) -> FloatArray:
    """Return the proposals' log-probabilities `[B, K, top]` after all the rules."""
    log_probs = proposals.log_probs
    for rule in rules:
        log_probs = rule.lower(past, proposals.ids, log_probs)
    return log_probs
