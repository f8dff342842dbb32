"""BLEU-1 to BLEU-4 (Papineni et al. 2002) with the official COCO code's length rule and tiny terms."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from showtell.metrics.metric import Metric
from showtell.metrics.official.ngrams import Collection, Counts, Ints, collect, find

TINY = 1e-15  # added to matches, so that no match at all is not log 0
SMALL = 1e-9  # added to their divisor
ORDERS = 4


def bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    """BLEU-1..4 of tokenised captions, in 0..1.

    Args:
        candidates: B captions.
        references: for each its references, at least one.

    Returns:
        The four corpus scores, and the scores of each image `[4, B]`. A corpus score is not the mean over images:
        matches and lengths are first summed over the corpus.

    Raises:
        ValueError: the lengths differ, or an image has no references.
    """
    statistics = bleu_statistics(candidates, references)
    return tuple(bleu_scores(statistics.sum(0)).tolist()), bleu_scores(statistics).T


def bleu_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Ints:
    """What BLEU adds up over images, `[B, 10]`: matches and n-grams by order, length, closest length."""
    counted = collect(candidates, references, ORDERS)
    images = len(candidates)
    matched = [_matches(counted, n, images) for n in range(ORDERS)]
    possible = [np.maximum(counted.candidate_words - n, 0) for n in range(ORDERS)]
    return np.stack([*matched, *possible, counted.candidate_words, _closest_length(counted, images)], axis=1)


def bleu_scores(statistics: NDArray[np.int64 | np.float64]) -> NDArray[np.float64]:
    """BLEU-1..4 `[..., 4]` from (sums of) `bleu_statistics` `[..., 10]`."""
    matched, possible = statistics[..., :ORDERS], statistics[..., ORDERS : 2 * ORDERS]
    length, closest = statistics[..., -2, None], statistics[..., -1, None]
    product = np.cumprod((matched + TINY) / (possible + SMALL), axis=-1)
    mean = product ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + TINY) / (closest + SMALL)
    # An image whose references are all empty has a huge ratio; an empty caption has a penalty of 0.
    scores: NDArray[np.float64] = mean * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return scores


def smoothed_bleu_4(statistics: NDArray[np.int64 | np.float64]) -> NDArray[np.float64]:
    """BLEU-4 `[...]` of single captions from `bleu_statistics` `[..., 10]`, 0 only if no word matches.

    Matches and n-grams of 2 to 4 words count one more than they are (Lin and Och 2004, ORANGE): most captions share no
    four words with a reference, and the product of `bleu_scores` would call all of these equally bad.
    """
    more = np.array([0, 1, 1, 1] * 2 + [0, 0])
    scores: NDArray[np.float64] = bleu_scores(statistics + more)[..., -1]
    return np.where(statistics[..., 0] > 0, scores, 0.0)


def _matches(counted: Collection, n: int, images: int) -> Ints:
    """For each image how many of the candidate's n-grams a reference has, at most as often as there, `[B]`."""
    candidate, reference = counted.candidates[n], counted.references[n]
    keys, most = _most_in_one_reference(reference, counted.image_of)
    found, place = find(candidate.caption * candidate.size + candidate.ngram, keys)
    clipped = np.minimum(candidate.times[found], most[place[found]])
    return np.bincount(candidate.caption[found], weights=clipped, minlength=images).astype(np.int64)


def _most_in_one_reference(reference: Counts, image_of: Ints) -> tuple[Ints, Ints]:
    """The (image, n-gram) keys of the references, sorted, and the highest count in any one of them."""
    keys = image_of[reference.caption] * reference.size + reference.ngram
    order = np.argsort(keys, kind="stable")
    distinct, begin = np.unique(keys[order], return_index=True)
    if not len(distinct):
        return distinct, distinct
    return distinct, np.maximum.reduceat(reference.times[order], begin)


def _closest_length(counted: Collection, images: int) -> Ints:
    """For each image the length of the reference closest in length, the shorter one of two, `[B]`."""
    length = counted.reference_words
    distance = np.abs(length - counted.candidate_words[counted.image_of])
    order = np.lexsort((length, distance, counted.image_of))
    first = np.searchsorted(counted.image_of[order], np.arange(images))
    return length[order][first]


BLEU = Metric(
    "BLEU",
    signature="BLEU",
    statistics=lambda candidates, references: bleu_statistics(candidates, references).astype(np.float64),
    from_sums=lambda sums, images: bleu_scores(sums),
    several=tuple(f"BLEU-{n}" for n in range(1, ORDERS + 1)),
)
