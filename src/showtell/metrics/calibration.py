"""How good a confidence is: whether it ranks captions like their scores, and whether it is the share that is right."""

from dataclasses import dataclass

import numpy as np

from showtell.metrics.metric import Floats

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """The figures for one confidence per image."""

    correlation: float
    """Spearman's rank correlation with the captions' scores."""
    error: float
    """Expected calibration error (Guo et al. 2017): |share that is right - mean confidence| over ten equal bins."""
    surer_half: float
    """Mean score of the surer half of the captions, divided by that of all."""


def calibration(confidence: Floats, scores: Floats, right: float) -> Calibration:
    """The figures for confidences `[B]` and scores `[B]` of captions; a score over `right` counts as right."""
    is_right = scores > right
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((is_right[bins == n] - confidence[bins == n]).sum())) for n in range(BINS)]
    surer = np.argsort(-confidence, kind="stable")[: (len(scores) + 1) // 2]
    mean = float(scores.mean())
    return Calibration(
        correlation=rank_correlation(confidence, scores),
        error=sum(gaps) / len(scores),
        surer_half=float(scores[surer].mean()) / mean if mean else 1.0,
    )


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, -1..1; 0 if one of them is constant."""
    ranks = [_ranks(first), _ranks(second)]
    if any(of.std() == 0 for of in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks; equal values share their mean rank."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = sizes.cumsum()
    ranks: Floats = ((last - sizes + last - 1) / 2)[group]
    return ranks
