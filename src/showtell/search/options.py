"""How to search: the options that the command line, the Python API and a model's config share."""

import math
from dataclasses import dataclass
from typing import ClassVar

from showtell.errors import UsageError


@dataclass(frozen=True)
class SearchOptions:
    """How captions are searched for. Contradictions are refused when the object is made.

    A hypothesis is ranked by `log_prob / T ** length_penalty`, where its T tokens include `<end>`, as
    `log_prob` does. Words are counted without it.

    Raises:
        UsageError: a value is out of its range, or two options contradict each other.
    """

    # So that pydantic, which reads these options in recipes and models, shows what each one means.
    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}

    beam: int = 3
    """Hypotheses followed at a time, for each image; 1 is greedy search."""

    groups: int = 1
    """Diverse beam search: the beam is split into so many groups, and each avoids the words of those before it."""

    diversity: float = 0.5
    """Groups: how much less likely, in log-probability, a word counts for each hypothesis of an earlier group
    that says it at the same place; 0.2 to 0.8 is usual."""

    sample: bool = False
    """Draw words at random, as the model weighs them, instead of searching for the most likely caption."""

    num: int = 1
    """Captions returned for each image, best first: the best of the beam, or this many samples."""

    temperature: float = 1.0
    """Sampling: below 1 prefers likely words more than the model does, above 1 less."""

    top_k: int | None = None
    """Sampling: draw from the k most likely words only."""

    top_p: float | None = None
    """Sampling: draw from the fewest most likely words whose probabilities reach p together."""

    seed: int = 0
    """Sampling: the same seed and image number give the same captions, in any batch."""

    length_penalty: float = 0.7
    """0 ranks by total log-probability, which favours short captions; 1 by the mean of the tokens."""

    min_words: int = 1
    """No caption is shorter."""

    max_words: int = 20
    """No caption is longer: one that has not ended by then is cut off and marked unfinished."""

    no_repeat_ngram: int = 0
    """No run of this many words comes twice in a caption; 0: any may."""

    banned_words: tuple[str, ...] = ()
    """Words that are never said. Words that the vocabulary lacks are not said anyway, and may stand here."""

    prefix: tuple[str, ...] = ()
    """Words that every caption begins with; they count as words, and the other rules hold for them too."""

    require: tuple[str, ...] = ()
    """Words that every finished caption says, anywhere; beam search only. The beam then follows `beam` hypotheses
    for each number of them said, which takes several times as long. Each must be one token of the vocabulary."""

    allow_unknown: bool = False
    """Whether `<unk>` may be said, as in papers that score it."""

    def __post_init__(self) -> None:
        for name, least in (
            ("beam", 1),
            ("groups", 1),
            ("num", 1),
            ("seed", 0),
            ("min_words", 0),
            ("max_words", 1),
            ("no_repeat_ngram", 0),
        ):
            _refuse_unless_whole(name, getattr(self, name), least)
        if self.top_k is not None:
            _refuse_unless_whole("top_k", self.top_k, 1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}, not over 0 and at most 1.", "Try top_p=0.9.")
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature}, not over 0.", "For the most likely words use beam=1.")
        if not 0 <= self.diversity < math.inf:
            raise UsageError(f"diversity is {self.diversity}, not 0 or more.", "Useful values are 0.2 to 0.8.")
        if not 0 <= self.length_penalty < math.inf:
            raise UsageError(f"length_penalty is {self.length_penalty}, not 0 or more.", "Useful values are 0 to 1.")
        if self.min_words > self.max_words:
            raise UsageError(
                f"min_words is {self.min_words}, over max_words ({self.max_words}).",
                "Lower one or raise the other.",
            )
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        for name in ("banned_words", "prefix", "require"):
            if not isinstance(getattr(self, name), tuple):
                raise UsageError(f"{name} is {getattr(self, name)!r}, not a tuple of words.", "Say ('word',).")
        required = set(self.require)
        for who, words in (
            ("prefix has", len(self.prefix)),
            ("require has", len(required)),
            ("prefix and require have", len(self.prefix) + len(required - set(self.prefix))),
        ):
            if words > self.max_words:
                raise UsageError(
                    f"{who} {words} words, over max_words ({self.max_words}).", "Shorten one or raise the other."
                )
        for name in ("prefix", "require"):
            for word in getattr(self, name):
                if word in self.banned_words:
                    raise UsageError(f"{name} has the word {word!r}, which banned_words forbids.", "Keep one of them.")
        for name, found in (("sample", self.sample), ("groups", self.groups > 1)):
            if self.require and found:
                raise UsageError(
                    f"require and {name} are both set, but only a beam without groups seeks words.",
                    f"Leave out require or {name}.",
                )
        if self.groups == 1 and self.diversity != 0.5:
            raise UsageError("diversity is set, but only groups use it.", "Set groups too, or leave it out.")
        if self.sample:
            if self.groups > 1:
                raise UsageError(f"groups is {self.groups}, but samples have none.", "Leave out groups or sample.")
            return
        if self.beam % self.groups:
            raise UsageError(
                f"A beam of {self.beam} can't be split into {self.groups} equal groups.",
                f"Use beam={-(-self.beam // self.groups) * self.groups}.",
            )
        if self.num > self.beam:
            raise UsageError(
                f"num is {self.num}, but a beam of {self.beam} finds at most {self.beam} captions.",
                f"Use beam={self.num} or more, or sample.",
            )
        for name, unset in (("temperature", 1.0), ("top_k", None), ("top_p", None)):
            if getattr(self, name) != unset:
                raise UsageError(f"{name} is set, but only sampling uses it.", "Set sample too, or leave it out.")


def _refuse_unless_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} is {value!r}, not a whole number from {least} up.")
