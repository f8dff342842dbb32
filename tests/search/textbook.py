"""Search as a textbook has it: one image, the whole vocabulary, plain lists. Ours is held against it."""

from collections.abc import Iterator

import numpy as np

from showtell.search import SearchOptions
from tests.search.scripted import END, PAD, START, UNK, ScriptedEngine, ScriptedVocabulary

Caption = tuple[tuple[int, ...], float, bool]  # tokens, score, finished


def allowed_words(engine: ScriptedEngine, options: SearchOptions, words: tuple[int, ...]) -> set[int]:
    """Which words (and `<end>`) the rules leave after these."""
    vocabulary = ScriptedVocabulary(engine.size)
    allowed = set(range(engine.size)) - {PAD, START}
    for run in (spelling for word in options.banned_words for spelling in vocabulary.spellings(word)):
        allowed = {word for word in allowed if (*words, word)[-len(run) :] != run}
    if not options.allow_unknown:
        allowed.discard(UNK)
    if len(words) < options.min_words or lacking(words, options):
        allowed.discard(END)
    n = options.no_repeat_ngram
    if n:
        allowed = {word for word in allowed if len(words) < n or (*words, word)[-n:] not in runs(words, n)}
    prefix = vocabulary.spell(" ".join(options.prefix)) or ()
    if len(words) < len(prefix):
        allowed &= {prefix[len(words)]}
    return allowed


def missing(words: tuple[int, ...], options: SearchOptions) -> list[tuple[tuple[int, ...], ...]]:
    """The spellings, of those that may be said, of each required word that is not among these."""
    spellings = ScriptedVocabulary(1000).spellings
    banned = [run for word in options.banned_words for run in spellings(word)]

    def may_be_said(way: tuple[int, ...]) -> bool:
        return len(way) <= options.max_words and not any(run in runs(way, len(run)) for run in banned)

    required = {tuple(filter(may_be_said, spellings(word))) for word in options.require}
    return [ways for ways in required if not any(run in runs(words, len(run)) for run in ways)]


def runs(words: tuple[int, ...], length: int) -> list[tuple[int, ...]]:
    return [words[place : place + length] for place in range(len(words) - length + 1)]


def lacking(words: tuple[int, ...], options: SearchOptions) -> int:
    """How many further ids the required words take at least, where the last of these may have begun one."""
    ends = [words[len(words) - length :] for length in range(len(words) + 1)]
    return sum(
        min(len(run) - begun for run in ways for begun in range(len(run)) if run[:begun] in ends)
        for ways in missing(words, options)
    )


def score(total: float, tokens: int, options: SearchOptions) -> float:
    return total / max(1, tokens) ** options.length_penalty


def ranked(captions: list[Caption]) -> list[Caption]:
    return sorted(captions, key=lambda caption: (not caption[2], -caption[1]))


def beam(engine: ScriptedEngine, image: int, options: SearchOptions) -> list[Caption]:
    """Beam search that stops when K have finished and none that lives stands better; nothing cleverer.

    K live for each number of ids that required words lack.
    """
    banks = range(lacking((), options), -1, -1)
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[Caption] = []
    for length in range(options.max_words + 1):
        candidates = []
        for words, total in live:
            log_probs = engine.log_probs(image, list(words))
            for word in np.argsort(-log_probs, kind="stable").tolist():
                if word in allowed_words(engine, options, words):
                    candidates.append(((*words, word), total + log_probs[word]))
        candidates.sort(key=lambda candidate: -candidate[1])
        going_on: list[tuple[tuple[int, ...], float]] = []
        ended = set()
        for bank in banks:
            places = options.beam
            for rank, (tokens, total) in enumerate(each for each in candidates if lacking(each[0], options) == bank):
                if not places:
                    break
                if tokens[-1] == END:
                    if options.like_generate and rank >= options.beam:
                        continue
                    finished.append((tokens, score(total, length + 1, options), True))
                    ended.add(tokens[:-1])
                else:
                    going_on.append((tokens, total))
                    places -= 1
        best = max((score(total, length + 1, options) for _, total in going_on), default=-np.inf)
        counted = options.beam if options.like_generate else options.num
        if len(finished) >= options.beam and ranked(finished)[counted - 1][1] >= best:
            break
        if length == options.max_words or not going_on:
            cut = [(words, score(total, length, options), False) for words, total in live if words not in ended]
            finished += cut
            break
        live = going_on
    return sorted(ranked(finished), key=lambda caption: len(missing(caption[0], options)))[: options.num]


def diverse_beam(engine: ScriptedEngine, image: int, options: SearchOptions) -> list[Caption]:
    """Vijayakumar et al. 2016, algorithm 1 with Hamming diversity: groups that take turns, each a `beam`."""
    width = options.beam // options.groups
    num = min(options.num, width)
    live: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(options.groups)]
    finished: list[list[Caption]] = [[] for _ in range(options.groups)]
    over = [False] * options.groups
    for length in range(options.max_words + 1):
        said: list[int] = []  # by the groups before, at this step
        for group in range(options.groups):
            if over[group]:
                continue
            candidates = []
            for words, total in live[group]:
                log_probs = engine.log_probs(image, list(words))
                for word in np.argsort(-log_probs, kind="stable").tolist():
                    if word in allowed_words(engine, options, words):
                        less = 0.0 if word == END else options.diversity * said.count(word)
                        after = total + log_probs[word]
                        candidates.append((after - less, (*words, word), after))
            candidates.sort(key=lambda candidate: -candidate[0])
            going_on: list[tuple[tuple[int, ...], float]] = []
            ended = set()
            for rank, (_, tokens, total) in enumerate(candidates):
                if len(going_on) == width:
                    break
                if tokens[-1] == END:
                    if options.like_generate and rank >= width:
                        continue
                    finished[group].append((tokens, score(total, length + 1, options), True))
                    ended.add(tokens[:-1])
                else:
                    going_on.append((tokens, total))
            said += [tokens[-1] for tokens, _ in going_on]
            best = max((score(total, length + 1, options) for _, total in going_on), default=-np.inf)
            counted = width if options.like_generate else num
            if len(finished[group]) >= width and ranked(finished[group])[counted - 1][1] >= best:
                over[group] = True
            elif length == options.max_words or not going_on:
                cut = [each for each in live[group] if each[0] not in ended]
                finished[group] += [(words, score(total, length, options), False) for words, total in cut]
                over[group] = True
            live[group] = going_on
    pool = ranked([caption for group in finished for caption in ranked(group)[:num]])
    again = [place for place, caption in enumerate(pool) if caption[0] in [other[0] for other in pool[:place]]]
    once = [place for place in range(len(pool)) if place not in again]
    return [pool[place] for place in sorted((once + again)[: options.num])]


def greedy(engine: ScriptedEngine, image: int, options: SearchOptions) -> Caption:
    """Take the most likely allowed word, again and again."""
    words: tuple[int, ...] = ()
    total = 0.0
    while True:
        log_probs = engine.log_probs(image, list(words))
        allowed = allowed_words(engine, options, words)
        if not allowed:
            return words, score(total, len(words), options), False
        word = max(sorted(allowed), key=lambda word: log_probs[word])
        if word == END:
            return (*words, END), score(total + log_probs[word], len(words) + 1, options), True
        if len(words) == options.max_words:
            return words, score(total, len(words), options), False
        words, total = (*words, word), total + log_probs[word]


def every_caption(engine: ScriptedEngine, image: int, options: SearchOptions) -> list[Caption]:
    """All finished captions there are, best first."""

    def grow(words: tuple[int, ...], total: float) -> Iterator[Caption]:
        log_probs = engine.log_probs(image, list(words))
        for word in sorted(allowed_words(engine, options, words)):
            if word == END:
                yield (*words, END), score(total + log_probs[END], len(words) + 1, options), True
            elif len(words) < options.max_words:
                yield from grow((*words, word), total + log_probs[word])

    return ranked(list(grow((), 0.0)))
