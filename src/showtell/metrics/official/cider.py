"""CIDEr-D (Vedantam, Zitnick and Parikh 2015): what the official COCO code prints as "CIDEr".

It differs from the paper's plain CIDEr: counts are clipped to the reference's, a Gaussian penalises the difference in
length, and words are not stemmed.
"""

from collections.abc import Sequence

import numpy as np

from showtell.metrics.metric import Floats, Metric
from showtell.metrics.official.ngrams import Counts, Ints, collect, find

ORDERS = 4
SIGMA = 6.0  # width of the length penalty, in words
SCALE = 10.0


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, Floats]:
    """CIDEr-D of tokenised captions, in 0..10.

    The weight of an n-gram depends on how many images of this set have it in a reference, so an image's score is
    different in another set, and a set of one image scores 0.

    Args:
        candidates: B captions.
        references: for each its references, at least one.

    Returns:
        The corpus score, which is the mean of the images' scores, and these `[B]`.

    Raises:
        ValueError: the lengths differ, or an image has no references.
    """
    counted = collect(candidates, references, ORDERS)
    image_of = counted.image_of
    images = len(candidates)
    if not images:
        return 0.0, np.zeros(0)
    similarity = np.zeros(len(image_of))  # [R]
    for candidate, reference in zip(counted.candidates, counted.references, strict=True):
        idf = np.log(images) - np.log(np.maximum(1, document_frequency(reference, image_of)))  # [size]
        similarity += _cosine(candidate, reference, idf, image_of, images)
    # The official code measures length in bigrams: an empty caption and a single word are both of length 0.
    length = np.maximum(counted.candidate_words - 1, 0)[image_of]
    difference = length - np.maximum(counted.reference_words - 1, 0)
    similarity *= np.exp(-(difference**2) / (2 * SIGMA**2)) / ORDERS
    per_image = SCALE * np.bincount(image_of, weights=similarity) / np.bincount(image_of)
    return float(per_image.mean()), per_image


def document_frequency(reference: Counts, image_of: Ints) -> Ints:
    """In how many images' references each n-gram occurs, `[size]`."""
    seen = np.unique(image_of[reference.caption] * reference.size + reference.ngram)
    return np.bincount(seen % reference.size, minlength=reference.size)


def _cosine(candidate: Counts, reference: Counts, idf: Floats, image_of: Ints, images: int) -> Floats:
    """The clipped cosine of each reference's tf-idf vector with its candidate's, `[R]`."""
    theirs = reference.times * idf[reference.ngram]
    ours = candidate.times * idf[candidate.ngram]
    keys = candidate.caption * candidate.size + candidate.ngram
    found, place = find(image_of[reference.caption] * reference.size + reference.ngram, keys)
    product = np.minimum(ours[place[found]], theirs[found]) * theirs[found]
    dot = np.bincount(reference.caption[found], weights=product, minlength=len(image_of))
    norm = np.sqrt(np.bincount(reference.caption, weights=theirs**2, minlength=len(image_of)))
    norm *= np.sqrt(np.bincount(candidate.caption, weights=ours**2, minlength=images))[image_of]
    return np.divide(dot, norm, out=np.zeros_like(norm), where=norm != 0)


CIDER = Metric(
    "CIDEr",
    signature="CIDEr-D",
    statistics=lambda candidates, references: cider_d(candidates, references)[1][:, None],
)
