"""How sure a caption is: the chance that it is right, from the probabilities of its words.

A caption counts as right when its CIDEr against people's captions of the photo is over 0.5. Dev photos, whose captions
training has not seen, tell how often that holds: first a straight line through a few features is fitted to the CIDEr
(its square root, as few captions have most of it), then a logistic curve to whether it is right (Platt 1999). What is
fitted stands in the model's config, and every engine computes it from what search returns.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]

RIGHT = 0.5  # CIDEr, 0..10
FEWEST = 50  # photos to fit on: with fewer, the fit says more of them than of the model
SURE, GUESS = 0.6, 0.3
RIDGE = 0.03  # for each photo: how much the features' weights are held back


class Confidence(BaseModel):
    """What turns a caption's features into a chance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[float, ...] = Field(description="of the features, in the order of `features_of`")
    bias: float

    def of(self, features: Floats) -> Floats:
        """The chance that each caption is right, 0..1 `[...]`, by its features `[..., F]`."""
        return _logistic(features @ np.array(self.weights) + self.bias)

    @classmethod
    def fit(cls, features: Floats, ciders: Floats) -> Self | None:
        """Fit it to the captions of photos.

        Args:
            features: `[images, F]`.
            ciders: `[images]`, of each caption against people's, 0..10.

        Returns:
            None where there are too few photos, or all captions are right, or none.
        """
        right = ciders > RIGHT
        if len(features) < FEWEST or right.all() or not right.any():
            return None
        mean, scale = features.mean(0), features.std(0) + 1e-9
        standard = (features - mean) / scale
        target = np.sqrt(ciders)
        held = standard.T @ standard + RIDGE * len(features) * np.eye(features.shape[1])
        line = np.linalg.solve(held, standard.T @ (target - target.mean()))
        slope, bias = _platt(standard @ line, right)
        weights = slope * line / scale
        return cls(weights=tuple(weights.tolist()), bias=float(bias - weights @ mean))


def features_of(word_log_probs: Sequence[float], log_prob: float, ids: Sequence[int]) -> Floats:
    """What is known of a caption, `[F]`.

    Args:
        word_log_probs: of its words.
        log_prob: of the whole caption, its end included.
        ids: of its words. Frequent words come first in a vocabulary: the logarithm of the place says how rare one is.
    """
    if not word_log_probs:
        return np.array([log_prob, log_prob, log_prob, 0.0])
    each, rarity = np.array(word_log_probs), np.log(np.maximum(ids, 4) - 2.0)
    return np.array(
        [
            log_prob / (len(each) + 1),
            each @ rarity / rarity.sum(),  # rare words say most of what is on a photo
            each.min(),
            np.log(len(each)),
        ]
    )


def in_words(confidence: float) -> str:
    """What people are told: sure, unsure, or a guess."""
    return "sure" if confidence >= SURE else "unsure" if confidence >= GUESS else "a guess"


def _platt(scores: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and bias of the logistic curve that is likeliest to have said what is right, by Newton's method."""
    inputs = np.stack([scores, np.ones_like(scores)], 1)
    # Platt's targets: a little less sure than what was seen.
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    found = np.array([0.0, np.log(right.mean() / (1 - right.mean()))])
    for _ in range(30):
        chances = _logistic(inputs @ found)
        hessian = (inputs * (chances * (1 - chances))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        found = found - np.linalg.solve(hessian, inputs.T @ (chances - target))
    return float(found[0]), float(found[1])


def _logistic(x: Floats) -> Floats:
    chances: Floats = 1 / (1 + np.exp(-np.clip(x, -30, 30)))
    return chances
