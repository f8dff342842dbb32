"""What a metric is to `score`, `compare`, training and the command line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from showtell.languages import ENGLISH

Floats = NDArray[np.float64]
Value = TypeVar("Value", float, Floats)
FractionDone = Callable[[float], None]
"""Called with the fraction of the work that is done, 0 to 1."""


def mean(sums: Floats, images: int) -> Floats:
    """The scores of a metric that is a mean of its images' scores."""
    return sums / images


def nothing(progress: FractionDone) -> None:
    """The preparation of most metrics."""


def no_doubt(references: Sequence[Sequence[str]]) -> str:
    """For a metric without such doubts."""
    return ""


def any_language(language: str) -> bool:
    """For a metric that fits every language."""
    return True


def only_english(language: str) -> bool:
    """For a metric that knows English words only."""
    return language == ENGLISH


@dataclass(frozen=True)
class Metric:
    """One metric: how it is computed, named and printed.

    A metric sums its statistics over the images, and computes its scores from the sums. One image, a corpus and a
    resampled corpus are scored alike.
    """

    name: str
    """Its name for `--metric`."""
    signature: str
    """Its name in signatures, with its version."""
    statistics: Callable[..., Floats]
    """The captions of B images, tokens with spaces between, and the references of each -> what is summed, `[B, F]`."""
    as_written: bool = False
    """Whether `statistics` takes captions as people write them, followed by their language, instead of tokens."""
    from_sums: Callable[[Floats, int], Floats] = mean
    """Sums `[..., F]` over a number of images -> the scores `[..., S]`."""
    several: tuple[str, ...] = ()
    """The names of its S scores, the main one last, if it has more than one."""
    needs: str = ""
    """What it needs, for help texts."""
    prepare: Callable[[FractionDone], object] = nothing
    """Raises MissingExtraError or DataError if something that it needs is missing; the first call may take long."""
    doubt: Callable[[Sequence[Sequence[str]]], str] = no_doubt
    """Tokenised references -> why the scores mean little for them, in a sentence; empty if there is no doubt."""
    fits: Callable[[str], bool] = any_language
    """Whether it is computed by default for captions in a language (see `languages.NAMES`)."""
    quick: bool = True
    """Whether it is computed after each epoch of training."""
    higher_is_better: bool = True
    scale: float = 100.0
    """The factor of scores on screen. Files hold them without it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its S scores, the main one last."""
        return self.several or (self.name,)

    def gain(self, first: Value, second: Value) -> Value:
        """How much better the second score is; negative where it is worse."""
        return second - first if self.higher_is_better else first - second

    def printed(self, score: float, sign: str = "") -> str:
        """A score as papers print it: 0.2345 is 23.5; `sign` is + for a difference."""
        return f"{self.scale * score:{sign}.1f}"
