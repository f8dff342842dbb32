"""What scores do not show: how many words a model uses, how often it repeats itself, and where captions break off.

All of it is about tokenised captions, as in the other metrics. A system that always says "a man in a field"
may have a fair CIDEr; it has a vocabulary of five words and one unique caption.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

# A caption that ends in one of these breaks off: people end one in a thousand so. Words that people do end
# captions with ("climbs up", "looks on", "a dog behind her") are not here.
NO_LAST_WORD = (
    "a an the and or but nor with of from into onto at to in as than that which who whose while because "
    "his its their my your our is are was were be has have very"
)
DANGLING = frozenset(NO_LAST_WORD.split())
REPEATED = 3  # words


@dataclass(frozen=True)
class Diversity:
    """How varied some captions are; from `unique` on, fractions of the captions, 0 to 1."""

    captions: int
    vocabulary: int
    """Distinct words."""
    mean_length: float
    """Words a caption."""
    unique: float
    """Distinct captions."""
    dangling: float
    """Captions that end in a word that can't end one: "a man with a"."""
    repeated_words: float
    """Captions with the same word twice running: "a red red car"."""
    repeated_ngrams: float
    """Captions in which the same three words stand twice: "in front of a house in front of a tree"."""
    copied: float | None
    """Captions that stand in the training captions, word for word; None when these are not given."""


def diversity(captions: Sequence[str], training: Collection[str] | None = None) -> Diversity:
    """The figures of some tokenised captions.

    Args:
        captions: one at least.
        training: the tokenised captions that the system was trained on.
    """
    words = [caption.split(" ") if caption else [] for caption in captions]
    count = len(captions)
    known = frozenset(training) if training is not None else None
    return Diversity(
        captions=count,
        vocabulary=len({word for of_caption in words for word in of_caption}),
        mean_length=sum(map(len, words)) / count,
        unique=len(set(captions)) / count,
        dangling=sum(dangles(of_caption) for of_caption in words) / count,
        repeated_words=sum(repeats(of_caption, 1) for of_caption in words) / count,
        repeated_ngrams=sum(repeats(of_caption, REPEATED) for of_caption in words) / count,
        copied=None if known is None else sum(caption in known for caption in captions) / count,
    )


def dangles(words: Sequence[str]) -> bool:
    """Whether the caption ends in a word that can't end one."""
    return bool(words) and words[-1] in DANGLING


def repeats(words: Sequence[str], size: int) -> bool:
    """Whether `size` words running stand twice in the caption; one word counts only right behind itself."""
    if size == 1:
        return any(a == b for a, b in pairwise(words))
    ngrams = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    return any(times > 1 for times in ngrams.values())
