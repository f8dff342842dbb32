"""What `showtell compare` finds, for its table, its page and its JSON."""

from dataclasses import dataclass
from pathlib import Path

from showtell.metrics.significance import Difference


@dataclass(frozen=True)
class Contrast:
    """One image, and what two systems say about it."""

    image_id: str
    first: str
    second: str
    first_score: float
    second_score: float
    references: tuple[str, ...]
    path: Path | None
    """Where its file may be, if known."""


@dataclass(frozen=True)
class Comparison:
    """Two systems side by side: all that the table, the page and `--json` show."""

    names: tuple[str, str]
    images: int
    references: int
    differences: list[Difference]
    missing: dict[str, str]
    doubts: tuple[str, ...]
    """Why some of the scores mean little, in sentences."""
    ranked_by: str
    wins: tuple[int, int, int]
    """Images that the first does better, that the second does better, and draws, by `ranked_by`."""
    contrasts: list[Contrast]
    left_out: dict[str, list[str]]
    """Reason -> the images that are not compared."""
    draws: int
    confidence: float
    seed: int
    signatures: tuple[str, str]
