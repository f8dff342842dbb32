"""How sure a caption is: the chance that it is right, from the probabilities of its words.

A caption counts as right when its CIDEr against people's captions of the photo is over 0.5. Dev photos, whose captions
training has not seen, tell how often that holds. First a straight line through a few features is fitted to the CIDEr
(its square root, as few captions have most of it), then a logistic curve to whether it is right (Platt 1999). Of
several data sets, all have an equal say in the line, and the curve is the first one's: photos of one kind may be harder
than those of another, and a chance is true of one kind. What is fitted stands in the model's config, and every engine
computes it from what search returns.
"""

import math
from collections import Counter
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
    rarity: tuple[float, ...] = Field(
        description="of each word, by id: `rarity_of` the captions that the model learnt from"
    )

    def of(self, features: Floats) -> Floats:
        """The chance that each caption is right, 0..1 `[...]`, by its features `[..., F]`."""
        return _logistic(features @ np.array(self.weights) + self.bias)

    @classmethod
    def fit(cls, of_datasets: Sequence[tuple[Floats, Floats]], rarity: tuple[float, ...]) -> Self | None:
        """Fit it to the captions of photos.

        Args:
            of_datasets: of each data set the captions' features `[images, F]` and their CIDEr against people's
                captions `[images]`, 0..10; those that the chance is to be true of come first.
            rarity: what the features were made with.

        Returns:
            None where the first one has too few photos, or all its captions are right, or none.
        """
        first, ciders = of_datasets[0]
        right = ciders > RIGHT
        if len(first) < FEWEST or right.all() or not right.any():
            return None
        features, target = (np.concatenate([each[part] for each in of_datasets]) for part in (0, 1))
        share = np.concatenate([np.full(len(each), 1 / len(each)) for each, _ in of_datasets]) / len(of_datasets)
        mean = share @ features
        scale = np.sqrt(share @ (features - mean) ** 2) + 1e-9
        standard, target = (features - mean) / scale, np.sqrt(target)
        held = standard.T @ (share[:, None] * standard) + RIDGE * np.eye(features.shape[1])
        line = np.linalg.solve(held, standard.T @ (share * (target - share @ target)))
        slope, bias = _platt((first - mean) / scale @ line, right)
        weights = slope * line / scale
        return cls(weights=tuple(weights.tolist()), bias=float(bias - weights @ mean), rarity=rarity)


def features_of(word_log_probs: Sequence[float], log_prob: float, rarity: Sequence[float]) -> Floats:
    """What is known of a caption, `[F]`.

    Args:
        word_log_probs: of its words.
        log_prob: of the whole caption, its end included.
        rarity: of its words, see `Confidence`.
    """
    if not word_log_probs:
        return np.array([log_prob, 0.0, 0.0])
    weights = np.square(rarity) + 1e-9
    return np.array(
        [
            log_prob / (len(word_log_probs) + 1),
            # What CIDEr is to be expected: it gives a word that people said, too, the square of its rarity.
            np.exp(word_log_probs) @ weights / weights.sum(),
            max(rarity),
        ]
    )


def rarity_of(captions: Sequence[Sequence[Sequence[int]]], vocabulary: int) -> tuple[float, ...]:
    """How rare each word is: the logarithm of one in how many images has it in a caption; `captions` are ids."""
    images = Counter(word for of_image in captions for word in {word for caption in of_image for word in caption})
    return tuple(round(math.log(len(captions) / max(1, images[word])), 1) for word in range(vocabulary))


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
