"""How sure a caption is: the chance that it is right, from the probabilities of its words.

A caption counts as right when its CIDEr against people's captions of the photo is over 0.5. Dev photos, which training
has not seen, show how often that holds. First a linear model of a few features is fitted to the CIDEr (to its square
root, as CIDEr is skewed), then a logistic curve to whether the caption is right (Platt 1999). With several data sets,
all count equally for the linear model, but only the first for the curve: one kind of photos may be harder than another,
and a chance is true for one kind only. The result is stored in the model's config, and every engine computes it from
what search returns.
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
FEWEST = 50  # photos to fit on: with fewer, the fit depends more on the photos than on the model
SURE, GUESS = 0.6, 0.3
RIDGE = 0.03  # ridge penalty on the features' weights, for each photo


class Confidence(BaseModel):
    """What turns a caption's features into a chance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[float, ...] = Field(description="of the features, in the order of `features_of`")
    bias: float
    rarity: tuple[float, ...] = Field(
        description="of each word, by id: `rarity_of` the captions that the model learnt from"
    )

    def of(self, features: Floats) -> Floats:
        """The chance that each caption is right, 0..1 `[...]`, from its features `[..., F]`."""
        return _logistic(features @ np.array(self.weights) + self.bias)

    @classmethod
    def fit(cls, of_datasets: Sequence[tuple[Floats, Floats]], rarity: tuple[float, ...]) -> Self | None:
        """Fit it to the captions of photos.

        Args:
            of_datasets: for each data set the captions' features `[images, F]` and their CIDEr against people's
                captions `[images]`, 0..10; the first data set is the one for which the chance shall be true.
            rarity: the rarity that the features were computed with.

        Returns:
            None if the first data set has too few photos, or if all or none of its captions are right.
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
    """The features of a caption, `[F]`.

    Args:
        word_log_probs: the log-probability of each word.
        log_prob: the log-probability of the whole caption, including its end.
        rarity: the rarity of each word, see `Confidence`.
    """
    if not word_log_probs:
        return np.array([log_prob, 0.0, 0.0])
    weights = np.square(rarity) + 1e-9
    return np.array(
        [
            log_prob / (len(word_log_probs) + 1),
            # The expected CIDEr, in which a word that people said, too, counts the square of its rarity.
            np.exp(word_log_probs) @ weights / weights.sum(),
            max(rarity),
        ]
    )


def rarity_of(captions: Sequence[Sequence[Sequence[int]]], vocabulary: int) -> tuple[float, ...]:
    """How rare each word is: log(images / images with the word in a caption); `captions` are ids."""
    images = Counter(word for of_image in captions for word in {word for caption in of_image for word in caption})
    return tuple(round(math.log(len(captions) / max(1, images[word])), 1) for word in range(vocabulary))


def in_words(confidence: float) -> str:
    """The confidence in words: sure, unsure, or a guess."""
    return "sure" if confidence >= SURE else "unsure" if confidence >= GUESS else "a guess"


def _platt(scores: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and bias of the logistic curve with the highest likelihood, by Newton's method."""
    inputs = np.stack([scores, np.ones_like(scores)], 1)
    # Platt's targets: a little less extreme than 0 and 1.
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
