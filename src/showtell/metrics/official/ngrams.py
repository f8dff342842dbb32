"""Count the n-grams of many captions at once, as arrays, for BLEU and CIDEr-D."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Key = TypeVar("Key", np.int64, np.uint64)


class Counts(NamedTuple):
    """How often each n-gram of one order occurs in each caption: E entries, by caption, then n-gram."""

    caption: Ints  # [E] number of the caption
    ngram: Ints  # [E] number of the n-gram, 0..size-1, the same in all captions
    times: Ints  # [E]
    size: int  # distinct n-grams; 1 if there is none


class Collection(NamedTuple):
    """Candidates and references with shared n-gram numbers; caption numbers are turned into image numbers."""

    candidates: list[Counts]  # per order; `caption` is the image
    references: list[Counts]  # per order; `caption` numbers the references of all images
    image_of: Ints  # [R] the image of each reference
    candidate_words: Ints  # [B]
    reference_words: Ints  # [R]


def collect(candidates: Sequence[str], references: Sequence[Sequence[str]], orders: int = 4) -> Collection:
    """Count the n-grams of B tokenised candidates and of the references of each.

    Raises:
        ValueError: the numbers of candidates and of reference lists differ, or an image has no references.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but {len(references)} lists of references")
    for number, of_image in enumerate(references):
        if not of_image:
            raise ValueError(f"the image at position {number} has no references")
    # split() also splits at U+00A0, which the token "22 3/4" holds: as in the official code
    captions = [c.split() for c in candidates] + [r.split() for of_image in references for r in of_image]
    lengths = np.array([len(words) for words in captions], dtype=np.int64)
    image_of = np.repeat(np.arange(len(references)), [len(of_image) for of_image in references])
    first, second = [], []
    for counts in count_ngrams(captions, orders):
        border = int(np.searchsorted(counts.caption, len(candidates)))
        first.append(Counts(counts.caption[:border], counts.ngram[:border], counts.times[:border], counts.size))
        second.append(
            Counts(
                counts.caption[border:] - len(candidates),
                counts.ngram[border:],
                counts.times[border:],
                counts.size,
            )
        )
    return Collection(first, second, image_of, lengths[: len(candidates)], lengths[len(candidates) :])


def count_ngrams(captions: Sequence[Sequence[str]], orders: int) -> list[Counts]:
    """The n-grams of orders 1 to `orders`.

    An n-gram's key is the number of its first n-1 words times the vocabulary, plus its last word; keys are
    made dense again at each order, so they never overflow, whatever the vocabulary.
    """
    vocabulary: dict[str, int] = {}
    words = np.array(
        [vocabulary.setdefault(w, len(vocabulary)) for caption in captions for w in caption], dtype=np.int64
    )
    caption = np.repeat(np.arange(len(captions)), [len(c) for c in captions])  # [W]
    begin = np.arange(len(words))  # where the n-grams of this order begin
    ngram, size = words, len(vocabulary)
    counts = [_count(caption, ngram, size)]
    for order in range(2, orders + 1):
        last = begin + order - 1
        inside = last < len(words)
        inside[inside] = caption[last[inside]] == caption[begin[inside]]
        begin, last = begin[inside], last[inside]
        keys, ngram = np.unique(ngram[inside] * len(vocabulary) + words[last], return_inverse=True)
        size = len(keys)
        counts.append(_count(caption[begin], ngram, size))
    return counts


def _count(caption: Ints, ngram: Ints, size: int) -> Counts:
    size = max(size, 1)
    keys, times = np.unique(caption * size + ngram, return_counts=True)
    return Counts(keys // size, keys % size, times, size)


def find(keys: NDArray[Key], among: NDArray[Key]) -> tuple[NDArray[np.bool_], Ints]:
    """Which `keys` are among the sorted, distinct keys `among`, and where (0 for those that aren't)."""
    if not len(among):
        return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=np.int64)
    place = np.searchsorted(among, keys)
    place[place == len(among)] = 0
    found = among[place] == keys
    return found, np.where(found, place, 0)
