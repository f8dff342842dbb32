"""Search rules: they lower the log-probabilities of proposed words.

A rule says beforehand how many words it can lower for one hypothesis, so that search asks the engine for
enough proposals: with `needed + most_lowered`, at least `needed` proposals stay as they were, and
everything beyond the cut ranks below them.

A vocabulary may spell a word with several ids (pieces or letters), and in several ways: "dog" at the beginning of a
caption, " dog" inside. A word counts as said if the ids of one of its spellings follow each other, even as the
beginning of a longer word: "dog" in "dog" + "##gy".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from showtell.errors import UsageError
from showtell.search.engine import BoolArray, FloatArray, IntArray, Proposals, Vocabulary
from showtell.search.options import SearchOptions

Spelling = tuple[int, ...]
Spellings = tuple[Spelling, ...]
"""The ways in which captions spell a word."""


@dataclass(frozen=True)
class Past:
    """What the hypotheses have said so far.

    Attributes:
        length: t, words of each hypothesis.
        words: returns the words themselves, `[B, K, t]`; they are traced only if a rule calls it.
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
    """Some ids are never said, neither as words nor as the first pieces of longer words."""

    def __init__(self, ids: set[int], vocabulary_size: int) -> None:
        self._banned: BoolArray = np.zeros(vocabulary_size, dtype=bool)  # [V]
        self._banned[list(ids)] = True
        self._count = len(ids)

    def most_lowered(self, length: int) -> int:
        return self._count

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        return np.where(self._banned[ids], -np.inf, log_probs)


class BannedRuns:
    """Some runs of two ids or more are never said: once all but the last have been said, the last is forbidden."""

    def __init__(self, runs: Iterable[Spelling]) -> None:
        lasts: dict[Spelling, set[int]] = defaultdict(set)
        for *begun, last in runs:
            lasts[tuple(begun)].add(last)
        self._lasts = {begun: sorted(forbidden) for begun, forbidden in lasts.items()}
        # A hypothesis that has just said one beginning has also said the shorter ones that it ends with.
        self._counts = [
            (len(begun), len(set().union(*(lasts.get(begun[n:], set()) for n in range(len(begun))))))
            for begun in self._lasts
        ]

    def most_lowered(self, length: int) -> int:
        """See `Rule`: few, since only few of the runs can have begun at the same time."""
        return max((count for begun, count in self._counts if begun <= length), default=0)

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        if not self.most_lowered(past.length):
            return log_probs
        words = past.words()
        for begun, forbidden in self._lasts.items():
            here = _says(words, begun)[..., -1]  # [B, K]
            if here.any():
                log_probs = np.where(here[..., None] & np.isin(ids, forbidden), -np.inf, log_probs)
        return log_probs


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
    """No run of `n` words occurs twice in a caption."""

    n: int
    vocabulary_size: int

    def most_lowered(self, length: int) -> int:
        """See `Rule`: each run that was said can forbid its last word."""
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
    """Every caption begins with these ids."""

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
    """No caption ends before it has said C words. Beam search makes room for those that say them.

    Attributes:
        most_lacking: how many ids the words take, each in its shortest spelling.
    """

    def __init__(self, words: Sequence[Spellings], end: int, vocabulary_size: int) -> None:
        """Take the spellings of each word."""
        self._words = words
        self._least = np.array([min(map(len, spellings)) for spellings in words])  # [C]
        self.most_lacking = int(self._least.sum())
        # For each word, what an id contributes: after `begun` was just said, so many fewer ids are lacking.
        self._brings: dict[tuple[int, int], list[tuple[Spelling, int]]] = defaultdict(list)
        for word, spellings in enumerate(words):
            for spelling in spellings:
                for place, id in enumerate(spelling):
                    fewer = int(self._least[word]) - len(spelling) + place + 1
                    if fewer > 0:
                        self._brings[word, id].append((spelling[:place], fewer))
        self._end = end
        self._vocabulary_size = vocabulary_size

    def missing(self, words: IntArray) -> BoolArray:
        """Return which of the C words are not yet among those that were said `[B, K, t]`: `[B, K, C]`."""
        said = [[_says(words, spelling).any(axis=-1) for spelling in spellings] for spellings in self._words]
        return ~np.stack([np.any(each, axis=0) for each in said], axis=-1)

    def lacking(self, past: Past, ids: IntArray) -> IntArray:
        """Return how many ids are lacking at least after a hypothesis has said one of `ids`: `[B, K, top]`.

        Of a word that has just been begun, only the rest is lacking; a hypothesis that says something else loses the
        beginning (Hokamp & Liu 2017).
        """
        words = past.words()
        missing = self.missing(words)
        lacking = np.repeat((missing * self._least).sum(axis=2, keepdims=True), self._vocabulary_size, axis=2)
        for (word, id), brings in self._brings.items():
            fewer = np.max([_says(words, begun)[..., -1] * count for begun, count in brings], axis=0)  # [B, K]
            lacking[..., id] -= missing[..., word] * fewer
        return np.take_along_axis(lacking, ids, axis=2)

    def most_lowered(self, length: int) -> int:
        """See `Rule`: it lowers only `<end>`, but needs all words, since a missing one may be the least likely."""
        return self._vocabulary_size

    def lower(self, past: Past, ids: IntArray, log_probs: FloatArray) -> FloatArray:
        incomplete = self.missing(past.words()).any(axis=2, keepdims=True)  # [B, K, 1]
        return np.where(incomplete & (ids == self._end), -np.inf, log_probs)


def _says(words: IntArray, run: Spelling) -> BoolArray:
    """Return where n ids follow each other among words `[..., t]`: `[..., t - n + 1]`, or `[..., 1]` if t < n."""
    if words.shape[-1] < len(run):
        return np.zeros((*words.shape[:-1], 1), dtype=bool)
    found: BoolArray = (np.lib.stride_tricks.sliding_window_view(words, len(run), axis=-1) == run).all(axis=-1)
    return found


def rules_for(options: SearchOptions, vocabulary: Vocabulary) -> list[Rule]:
    """Return the rules that the options ask for; `<pad>` and `<start>` are never said.

    Raises:
        UsageError: the vocabulary can't spell the prefix or a required word, or not within `max_words` ids or
            without a banned one.
    """
    banned: set[Spelling] = {(vocabulary.pad,), (vocabulary.start,)}
    if not options.allow_unknown:
        banned.add((vocabulary.unk,))
    banned.update(spelling for word in options.banned_words for spelling in vocabulary.spellings(word))
    rules: list[Rule] = [Banned({run[0] for run in banned if len(run) == 1}, len(vocabulary))]
    if runs := [run for run in banned if len(run) > 1]:
        rules.append(BannedRuns(runs))
    if options.min_words:
        rules.append(MinimumLength(options.min_words, vocabulary.end))
    if options.no_repeat_ngram:
        rules.append(NoRepeatedNgram(options.no_repeat_ngram, len(vocabulary)))
    if options.prefix:
        text = " ".join(options.prefix)
        spelled = vocabulary.spell(text)
        if spelled is None:
            text = next((word for word in options.prefix if vocabulary.spell(word) is None), text)
        [prefix] = _sayable("prefix", text, () if spelled is None else (spelled,), banned, options)
        rules.append(ForcedPrefix(prefix, len(vocabulary)))
    if options.require:
        required = [_sayable("require", word, vocabulary.spellings(word), banned, options) for word in options.require]
        rules.append(Required(list(dict.fromkeys(required)), vocabulary.end, len(vocabulary)))
    return rules


def _sayable(option: str, text: str, spellings: Spellings, banned: set[Spelling], options: SearchOptions) -> Spellings:
    """Return the spellings that contain no banned run and fit into a caption; UsageError if none is left."""
    if not spellings:
        raise UsageError(f"{option} has the word {text!r}, which this model never says.", "Choose another word.")
    allowed = [each for each in spellings if not any(_says(np.array(each), run).any() for run in banned)]
    if not allowed:
        raise UsageError(f"{option} has {text!r}, which banned_words makes impossible to say.", "Keep one of them.")
    short = tuple(each for each in allowed if len(each) <= options.max_words)
    if not short:
        raise UsageError(
            f"{option} has {text!r}, which takes {min(map(len, allowed))} tokens, "
            f"over max_words ({options.max_words}).",
            "Raise max_words or leave it out.",
        )
    return short


def most_lowered(rules: Sequence[Rule], length: int) -> int:
    """Return m, the most words that all the rules can lower for one hypothesis of `length` words."""
    return sum(rule.most_lowered(length) for rule in rules)


def lowered(rules: Sequence[Rule], past: Past, proposals: Proposals) -> FloatArray:
    """Return the proposals' log-probabilities `[B, K, top]` after all the rules."""
    log_probs = proposals.log_probs
    for rule in rules:
        log_probs = rule.lower(past, proposals.ids, log_probs)
    return log_probs
