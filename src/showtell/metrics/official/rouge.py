"""ROUGE-L (Lin 2004) as in the official COCO code: best precision and best recall, chosen separately."""

from collections.abc import Sequence

import numpy as np

from showtell.metrics.metric import Floats, Metric

BETA = 1.2  # weight of recall against precision


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, Floats]:
    """ROUGE-L of tokenised captions, in 0..1.

    Args:
        candidates: B captions.
        references: for each its references, at least one.

    Returns:
        The corpus score, which is the mean of the images' scores, and these `[B]`.

    Raises:
        ValueError: the lengths differ, or an image has no references.
    """
    per_image = np.array(
        [_score(candidate, of_image) for candidate, of_image in zip(candidates, references, strict=True)]
    )
    return (float(per_image.mean()) if len(per_image) else 0.0), per_image


def _score(candidate: str, references: Sequence[str]) -> float:
    if not references:
        raise ValueError(f"the image of the candidate {candidate!r} has no references")
    words = candidate.split(" ")  # an empty caption has one empty word, as in the official code
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = common_subsequence(words, other)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(other))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    One row of the usual table is kept as the bits of one integer, with a zero bit where the row goes up by one
    (Hyyrö 2004), so a row takes four operations, whatever its length.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & full
    return len(first) - row.bit_count()


ROUGE_L = Metric(
    "ROUGE_L",
    signature="ROUGE-L",
    statistics=lambda candidates, references: rouge_l(candidates, references)[1][:, None],
)
