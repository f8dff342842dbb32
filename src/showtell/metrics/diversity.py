"""What scores do not show: how many words a model uses, how often it repeats itself, and where captions break off.

Captions are tokenised, as for the other metrics. A system that always says "a man in a field" may have a fair CIDEr,
but it has a vocabulary of five words and one unique caption.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

# A caption that ends in one of these words breaks off: only one in a thousand of people's captions does. Words at the
# end of people's captions ("climbs up", "looks on", "a dog behind her") are not here.
NO_LAST_WORD = (
    "a an the and or but nor with of from into onto at to in as than that which who whose while because "
    "his its their my your our is are was were be has have very"
)
DANGLING = frozenset(NO_LAST_WORD.split())
REPEATED = 3  # words


@dataclass(frozen=True)
class Diversity:
    """How varied captions are; from `unique` on, fractions of the captions, 0 to 1."""

    captions: int
    vocabulary: int
    """Distinct words."""
    mean_length: float
    """Words per caption."""
    unique: float
    """Distinct captions."""
    dangling: float
    """Captions that end in a word that can't end one: "a man with a"."""
    repeated_words: float
    """Captions with the same word twice running: "a red red car"."""
    repeated_ngrams: float
    """Captions that contain the same three words twice: "in front of a house in front of a tree"."""
    copied: float | None
    """Captions that are also training captions, word for word; None if these are not given."""


def diversity(captions: Sequence[str], training: Collection[str] | None = None) -> Diversity:
    """The figures of some tokenised captions.

    Args:
        captions: at least one.
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
    """Whether the caption contains the same `size` words twice; a single word only counts right after itself."""
    if size == 1:
        return any(a == b for a, b in pairwise(words))
    ngrams = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    return any(times > 1 for times in ngrams.values())
