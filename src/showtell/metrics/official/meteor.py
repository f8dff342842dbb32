"""METEOR 1.5 for English (Denkowski and Lavie 2014), equal to the official Java program (``-l en -norm``).

A caption is aligned with a reference, word by word or phrase by phrase, by four kinds of match: the same
word, the same stem, a synonym (WordNet), a paraphrase (a table of phrases). The score is a weighted F-mean of
the matched words, where function words count less, times a penalty for matches scattered over many chunks.

If the program differs from the paper, we do what the program does; comments say where.
"""

import importlib.metadata
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from showtell.errors import DataError, MissingExtraError
from showtell.metrics.metric import Floats, FractionDone, Metric, only_english
from showtell.metrics.official.meteor_data import MeteorData, load_meteor_data

# Recall's weight, the penalty's power and size, content words' weight.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # of exact, stem, synonym and paraphrase matches
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
BEAM = 40
STEMMER = "2.2"  # later versions stem "evening", "universal" and 150 other words differently


def meteor(
    candidates: Sequence[str], references: Sequence[Sequence[str]], data: MeteorData | None = None
) -> tuple[float, Floats]:
    """METEOR of tokenised captions, in 0..1.

    Args:
        candidates: B captions.
        references: for each its references, at least one.
        data: synonyms and paraphrases; the user's copy by default, which is built at the first call.

    Returns:
        The corpus score, which is not the mean over images (matches are first summed over the corpus), and the
        scores of the images `[B]`, each with its best-fitting reference.

    Raises:
        ValueError: the lengths differ, or an image has no references.
        MissingExtraError: PyStemmer, or pycocoevalcap with METEOR's data, is not installed.
        DataError: PyStemmer has another version, or pycocoevalcap lacks its files.
    """
    statistics = meteor_statistics(candidates, references, data)
    return float(meteor_scores(statistics.sum(0))), meteor_scores(statistics)


def meteor_statistics(
    candidates: Sequence[str], references: Sequence[Sequence[str]], data: MeteorData | None = None
) -> Floats:
    """What METEOR adds up over images, `[B, 7]`: the `Statistics` of each image with its best reference."""
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but {len(references)} lists of references")
    if not all(references):
        raise ValueError("an image has no references")
    check_stemmer()  # before the data are built, which takes a while
    texts = [*candidates, *(r for of_image in references for r in of_image)]
    aligner = Aligner(texts, data or load_meteor_data())
    statistics = np.array(
        [aligner.statistics(c, r) for c, of_image in zip(candidates, references, strict=True) for r in of_image],
        dtype=np.float64,
    ).reshape(-1, len(Statistics._fields))
    scores = meteor_scores(statistics)
    begin = 0
    best = []
    for of_image in references:
        best.append(begin + int(scores[begin : begin + len(of_image)].argmax()))  # the first of equal ones
        begin += len(of_image)
    return statistics[best]


def prepare(progress: FractionDone) -> None:
    """Check the stemmer and build the data, once for all. Raises as `meteor` does."""
    check_stemmer()
    load_meteor_data(progress=progress)


def doubt(references: Sequence[Sequence[str]], data: MeteorData | None = None) -> str:
    """A sentence if more than a third of the words of the references `[B]` are not English, the language of the data.

    Short words are ignored, as languages share them. In sets of five English captions at least three in four words are
    known, and mostly all; in German, French or Spanish ones one in three.
    """
    times = Counter(word for of_image in references for caption in of_image for word in caption.split())
    words = {w: count for w, count in times.items() if w.isalpha() and (len(w) > 3 or not w.isascii())}
    data = data or load_meteor_data()
    english = sum(count for word, count in words.items() if word in data.function_words or data.synonym_sets(word))
    if 3 * english >= 2 * sum(words.values()):
        return ""
    return "The captions do not seem to be English: METEOR and the share that break off mean little for them."


def check_stemmer() -> None:
    """Refuse a stemmer whose stems differ from the official program's.

    Raises:
        MissingExtraError: there is none.
        DataError: it has another version.
    """
    try:
        version = importlib.metadata.version("PyStemmer")
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("METEOR", "meteor") from None
    if not version.startswith(f"{STEMMER}."):
        raise DataError(
            f"PyStemmer {version} is installed, but its stems are not METEOR's.",
            f"Run: pip install 'PyStemmer=={STEMMER}.*'",
        )


class Statistics(NamedTuple):
    """What a score is computed from; for a corpus, the sums over its images."""

    words: float  # of the caption, weighted: content words DELTA, function words 1 - DELTA
    reference_words: float
    matched: float  # weighted by the kind of match, too
    reference_matched: float
    matched_words: int
    reference_matched_words: int
    chunks: int


def meteor_scores(statistics: Floats) -> Floats:
    """The scores `[...]` of (sums of) `Statistics` `[..., 7]`; 0 if nothing matches."""
    words, reference_words, matched, reference_matched, *matched_words, chunks = np.moveaxis(statistics, -1, 0)
    some = (matched > 0) & (reference_matched > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matched / words, reference_matched / reference_words
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        scattering = chunks / ((matched_words[0] + matched_words[1]) / 2)
        scores = mean * (1 - GAMMA * scattering**BETA)
    return np.where(some, scores, 0.0)


class Match(NamedTuple):
    """A phrase of the reference with a phrase of the caption."""

    place: int  # of the first word in the reference
    words: int
    candidate_place: int
    candidate_words: int
    kind: int


class Sentence:
    """A caption or reference with all that matching needs to know about it."""

    def __init__(self, text: str) -> None:
        self.words = normalise(text).split()
        self.phrases: list[tuple[int, int, int]] = []  # (place, words, node) of phrases with paraphrases
        self.synonyms: list[frozenset[str]] = []  # for each word
        self.stems: list[str] = []
        self.is_function: list[bool] = []

    @cached_property
    def weight(self) -> float:
        """Number of words, content words weighted by DELTA and function words by 1 - DELTA."""
        function_words = sum(self.is_function)
        return DELTA * (len(self.words) - function_words) + (1 - DELTA) * function_words

    @cached_property
    def places_of_words(self) -> dict[str, list[int]]:
        """Word -> its places."""
        return _places(self.words)

    @cached_property
    def places_of_stems(self) -> dict[str, list[int]]:
        """Stem -> the places of its words."""
        return _places(self.stems)

    @cached_property
    def places_of_phrases(self) -> dict[int, list[tuple[int, int]]]:
        """Node of a phrase -> (place, words)."""
        places: dict[int, list[tuple[int, int]]] = {}
        for place, words, node in self.phrases:
            places.setdefault(node, []).append((place, words))
        return places


class Aligner:
    """Aligns captions with references; it is given all texts at once, so that the tables are read once."""

    def __init__(self, texts: Sequence[str], data: MeteorData) -> None:
        import Stemmer

        self._sentences = {text: Sentence(text) for text in texts}
        sentences = list(self._sentences.values())
        vocabulary = sorted({word for sentence in sentences for word in sentence.words})
        stem = dict(zip(vocabulary, Stemmer.Stemmer("english").stemWords(vocabulary), strict=True))
        synonyms = {word: data.synonym_sets(word) for word in vocabulary}
        phrases = data.phrases([sentence.words for sentence in sentences])
        self._paraphrases = data.paraphrases({node for found in phrases for _, _, node in found})
        for sentence, found in zip(sentences, phrases, strict=True):
            sentence.phrases = found
            sentence.stems = [stem[word] for word in sentence.words]
            sentence.synonyms = [synonyms[word] for word in sentence.words]
            sentence.is_function = [word in data.function_words for word in sentence.words]

    def statistics(self, candidate: str, reference: str) -> Statistics:
        """The numbers of the best alignment of two texts."""
        ours, theirs = self._sentences[candidate], self._sentences[reference]
        matches = align(self.candidate_matches(ours, theirs), len(theirs.words))
        matched = sum(WEIGHTS[m.kind] * _weight(ours, m.candidate_place, m.candidate_words) for m in matches)
        reference_matched = sum(WEIGHTS[m.kind] * _weight(theirs, m.place, m.words) for m in matches)
        chunks = 0
        ends = (-1, -1)
        for m in matches:
            chunks += ends != (m.place, m.candidate_place)
            ends = (m.place + m.words, m.candidate_place + m.candidate_words)
        matched_words = sum(m.candidate_words for m in matches)
        reference_matched_words = sum(m.words for m in matches)
        if chunks == 1 and (matched_words, reference_matched_words) == (len(ours.words), len(theirs.words)):
            chunks = 0  # not in the paper: a perfect match has no chunks, for the corpus either
        return Statistics(
            ours.weight,
            theirs.weight,
            matched,
            reference_matched,
            matched_words,
            reference_matched_words,
            chunks,
        )

    def candidate_matches(self, ours: Sentence, theirs: Sentence) -> list[list[Match]]:
        """For each place of the reference the matches that begin there, kind after kind."""
        found: list[list[Match]] = [[] for _ in theirs.words]
        for j, word in enumerate(theirs.words):
            found[j] += [Match(j, 1, i, 1, EXACT) for i in ours.places_of_words.get(word, ())]
        if ours.words == theirs.words:
            return found
        for j, word in enumerate(theirs.words):
            same_stem = ours.places_of_stems.get(theirs.stems[j], ())
            found[j] += [Match(j, 1, i, 1, STEM) for i in same_stem if ours.words[i] != word]
            sets = theirs.synonyms[j]
            if sets:
                found[j] += [
                    Match(j, 1, i, 1, SYNONYM)
                    for i, others in enumerate(ours.synonyms)
                    if not sets.isdisjoint(others) and ours.words[i] != word
                ]
        # Paraphrases of the reference's phrases first, then of the caption's. A pair that the table has in both
        # directions is here twice, which keeps it from being fixed before the search.
        for j, words, node in theirs.phrases:
            for target in self._paraphrases.get(node, ()):
                for i, others in ours.places_of_phrases.get(target, ()):
                    found[j].append(Match(j, words, i, others, PARAPHRASE))
        for i, words, node in ours.phrases:
            for target in self._paraphrases.get(node, ()):
                for j, others in theirs.places_of_phrases.get(target, ()):
                    found[j].append(Match(j, others, i, words, PARAPHRASE))
        return found


class Partial(NamedTuple):
    """A partial alignment. Paths are compared by their first three entries."""

    uncovered: int  # minus the covered words of both texts
    chunks: int  # closed ones
    distance: int
    end: int  # where the open chunk continues in the caption; -1: none is open
    used: int  # bit i: word i of the caption is matched
    free_from: int  # the reference's words before this place are matched or skipped
    matches: tuple[Match, ...]


def align(found: list[list[Match]], length: int) -> list[Match]:
    """The matches that cover most words, in fewest chunks, over the shortest distance; by beam search.

    Args:
        found: for each place of the reference, the possible matches that begin there.
        length: words of the reference.
    """
    fixed = _fixed(found, length)
    used = sum(_bits(m.candidate_place, m.candidate_words) for m in fixed.values())
    taken = {place for m in fixed.values() for place in range(m.place, m.place + m.words)}
    beam = [Partial(0, 0, 0, -1, used, 0, ())]
    better = itemgetter(0, 1, 2)
    for place, matches in enumerate(found):
        paths: list[Partial] = []
        for path in beam:
            if place < path.free_from:
                paths.append(path)
            elif place in fixed:
                paths.append(_extended(path, fixed[place], path.distance + _distance(fixed[place])))
            else:
                distance = path.distance
                for match in matches:
                    bits = _bits(match.candidate_place, match.candidate_words)
                    if path.used & bits or (
                        match.words > 1 and not taken.isdisjoint(range(place, place + match.words))
                    ):
                        continue
                    paths.append(_extended(path, match, distance)._replace(used=path.used | bits))
                    # The distance is paid not by the path that takes the match, but by its successors.
                    distance += _distance(match)
                if path.end >= 0 or distance != path.distance:
                    path = path._replace(chunks=path.chunks + (path.end >= 0), distance=distance, end=-1)
                paths.append(path)
        paths.sort(key=better)
        beam = paths[:BEAM]
    beam = [path._replace(chunks=path.chunks + (path.end >= 0)) for path in beam]
    return list(min(beam, key=better).matches)


def _fixed(found: list[list[Match]], length: int) -> dict[int, Match]:
    """The matches that overlap with no other: they are taken before the search."""
    times: dict[int, int] = {}
    covered = [0] * length
    for matches in found:
        for m in matches:
            for i in range(m.candidate_place, m.candidate_place + m.candidate_words):
                times[i] = times.get(i, 0) + 1
            for j in range(m.place, m.place + m.words):
                covered[j] += 1
    return {
        matches[0].place: matches[0]
        for matches in found
        if len(matches) == 1
        and all(covered[j] == 1 for j in range(matches[0].place, matches[0].place + matches[0].words))
        and all(times[matches[0].candidate_place + k] == 1 for k in range(matches[0].candidate_words))
    }


def _extended(path: Partial, match: Match, distance: int) -> Partial:
    """The path with one more match; `used` is left as it was."""
    # Covered words are whole numbers in the program, and matches that are not exact count half, rounded down:
    # one such word adds nothing.
    if match.kind == EXACT:
        covered = match.words + match.candidate_words
    else:
        covered = match.words // 2 + match.candidate_words // 2
    return Partial(
        path.uncovered - covered,
        path.chunks + (path.end >= 0 and path.end != match.candidate_place),
        distance,
        match.candidate_place + match.candidate_words,
        path.used,
        match.place + match.words,
        (*path.matches, match),
    )


def _distance(match: Match) -> int:
    return abs(match.place - match.candidate_place)


def _bits(place: int, words: int) -> int:
    return ((1 << words) - 1) << place


def _weight(sentence: Sentence, place: int, words: int) -> float:
    return sum(1 - DELTA if function else DELTA for function in sentence.is_function[place : place + words])


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    return places


PLAIN = re.compile(r"[A-Za-z0-9 ]*")
LETTER = "A-Za-zÀ-ÖØ-öø-ž"
CHANGES = [
    (re.compile(pattern), new)
    for pattern, new in [
        ("[`‘’]", "'"),
        ("''|[“”]", '"'),
        ("--", "-"),
        ("–", "-"),
        (rf"([^{LETTER}0-9\s.',-])", r" \1 "),
        (rf"([{LETTER}0-9.])-([{LETTER}0-9])", r"\1 \2"),  # t-shirt: t shirt
        (r"(\.{2,})", r" \1 "),
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (rf"([^{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
        (rf"([^{LETTER}0-9])'([{LETTER}])", r"\1 ' \2"),
        (rf"([{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
        (rf"([{LETTER}])'([{LETTER}])", r"\1 '\2"),
        (r"([0-9])'(s)", r"\1 's"),
    ]
]
KEEPS_ITS_STOP = frozenset(["v", "vs", "rev"])


def normalise(text: str) -> str:
    """METEOR's own tokens (``-norm``) of a caption that is tokenised already; mostly the same words."""
    if PLAIN.fullmatch(text):
        return text
    text = f" {text} "
    for pattern, new in CHANGES:
        text = pattern.sub(new, text)
    words = text.split()
    return " ".join(_without_stop(word, following) for word, following in zip(words, [*words[1:], ""], strict=True))


def _without_stop(word: str, following: str) -> str:
    """The word, separated from its full stop, unless the stop is part of it; an acronym without stops."""
    stem = word[:-1]
    if not word.endswith(".") or not stem.strip("."):
        return word
    if "." in stem and re.search(f"[{LETTER}]", stem):
        return word.replace(".", "")  # u.s.: us
    if stem in KEEPS_ITS_STOP or re.match("[a-z]", following) or (stem == "pp" and following[:1].isdigit()):
        return word
    return f"{stem} ."


METEOR = Metric(
    "METEOR",
    signature="METEOR-1.5",
    statistics=meteor_statistics,
    from_sums=lambda sums, images: meteor_scores(sums)[..., None],
    needs="English and showtell[meteor]",
    prepare=prepare,
    doubt=doubt,
    fits=only_english,
    quick=False,  # it would take longer than captioning
)
