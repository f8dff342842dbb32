"""Is one system better than another, or was it luck with these images?

Two answers for each metric, both over images: the paired bootstrap (Koehn 2004) draws sets of images again
and again and looks at the difference on each; approximate randomisation (Riezler and Maxwell 2005) swaps the
two systems' captions on random images, which would change nothing if the systems were equally good. BLEU and
METEOR are recomputed on each draw from their sums over images. CIDEr keeps the n-gram weights of
the whole set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from showtell.errors import DataError, UsageError
from showtell.metrics.metric import Floats, Metric
from showtell.metrics.report import Report
from showtell.metrics.table import METRICS, RANKED_BY

AT_ONCE = 500  # draws; it bounds the memory: AT_ONCE x images numbers


@dataclass(frozen=True)
class Difference:
    """How the second system differs from the first in one metric."""

    metric: str
    first: float
    second: float
    interval: tuple[float, float]
    """Confidence interval of second - first, by the bootstrap."""
    p_bootstrap: float
    """Fraction of the resampled sets whose difference is as far from the mean as the observed one is from 0."""
    p_randomisation: float
    """Fraction of the random swaps with a difference as large as the observed, in either direction."""

    @property
    def difference(self) -> float:
        """Positive when the second system is better."""
        return self.second - self.first


def compare(
    first: Report, second: Report, *, draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> list[Difference]:
    """Compare two systems in every metric that both reports hold.

    Args:
        first: the scores of one system.
        second: the scores of the other on the same images, in the same order.
        draws: sets of images drawn, and random swaps made; the smallest p-value is 1 / (draws + 1).
        confidence: the confidence level of the interval, between 0 and 1.
        seed: the same seed gives the same numbers.

    Raises:
        DataError: the reports are about different images.
        UsageError: `draws` or `confidence` is out of range.
    """
    if first.image_ids != second.image_ids:
        other = sorted(set(first.image_ids) ^ set(second.image_ids))
        named = f"only one of them has {other[0]}" if other else "their order differs"
        raise DataError(
            f"The two systems were not scored on the same images: {named}.",
            "Score both against the same references.",
        )
    if draws < 1:
        raise UsageError(f"draws is {draws}.", "At least one is needed; 1,000 or more give useful p-values.")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}.", "It must lie between 0 and 1, for example 0.95.")
    both = first.statistics.keys() & second.statistics.keys()
    metrics = [metric for name, metric in METRICS.items() if name in both]
    resampled = _differences(first, second, metrics, _resamples(len(first.image_ids), draws, seed))
    swapped = _differences(first, second, metrics, _swaps(len(first.image_ids), draws, seed))
    tail = (1 - confidence) / 2
    found = []
    for column, name in enumerate(name for metric in metrics for name in metric.names):
        observed = abs(second.scores[name] - first.scores[name]) - 1e-12  # rounding must not turn a tie into a win
        bootstrap = resampled[:, column]
        low, high = np.quantile(bootstrap, [tail, 1 - tail])
        found.append(
            Difference(
                metric=name,
                first=first.scores[name],
                second=second.scores[name],
                interval=(float(low), float(high)),
                p_bootstrap=_p(np.abs(bootstrap - bootstrap.mean()) >= observed),
                p_randomisation=_p(np.abs(swapped[:, column]) >= observed),
            )
        )
    return found


def most_different(first: Report, second: Report, score: str = RANKED_BY, count: int = 10) -> list[tuple[str, float]]:
    """The images where the systems differ most, the largest first: (image id, second's score - first's)."""
    difference = second.per_image[score] - first.per_image[score]
    order = np.argsort(-np.abs(difference), kind="stable")[:count]
    return [(first.image_ids[n], float(difference[n])) for n in order]


def _p(extreme: NDArray[np.bool_]) -> float:
    return float((extreme.sum() + 1) / (len(extreme) + 1))


def _resamples(images: int, draws: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """How often each image counts in a draw `[draws, B]`: with the system's own caption, and with the other's."""
    random = np.random.default_rng([seed, 0])
    for begin in range(0, draws, AT_ONCE):
        rows = min(AT_ONCE, draws - begin)
        drawn = random.integers(images, size=(rows, images)) + np.arange(rows)[:, None] * images
        times = np.bincount(drawn.reshape(-1), minlength=rows * images).reshape(rows, images)
        yield times.astype(np.float64), np.zeros((rows, images))


def _swaps(images: int, draws: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """As `_resamples`: each image once, with one or the other caption."""
    random = np.random.default_rng([seed, 1])
    for begin in range(0, draws, AT_ONCE):
        own = random.integers(2, size=(min(AT_ONCE, draws - begin), images)).astype(np.float64)
        yield own, 1 - own


def _differences(
    first: Report, second: Report, metrics: Sequence[Metric], weights: Iterator[tuple[Floats, Floats]]
) -> Floats:
    """Second - first of each draw and score `[draws, scores]`."""
    images = len(first.image_ids)
    draws = []
    for own, other in weights:
        columns = []
        for metric in metrics:
            a, b = first.statistics[metric.name], second.statistics[metric.name]
            sums_of_first, sums_of_second = own @ a + other @ b, own @ b + other @ a
            columns.append(metric.from_sums(sums_of_second, images) - metric.from_sums(sums_of_first, images))
        draws.append(np.concatenate(columns, axis=1))
    return np.concatenate(draws)
