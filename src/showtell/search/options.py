"""How to search: each option is declared here once.

The declaration gives the field of `SearchOptions`, the flag of the command line, the field of an HTTP request in the
OpenAPI document, the control on the web page, and the key in recipes and in a model's config.
"""

import math
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from showtell.errors import UsageError

MOST = 10_000  # captions that are followed at a time: memory would not suffice for millions


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a search option has, besides its name, type and default.

    Attributes:
        help: one sentence.
        metavar: what `-h` calls the value.
        flags: its flags on the command line, if they are not --its-name.
        mode: which search uses it, beam or sampling; both if None.
        ge: the least number that the search takes.
        gt: what a number must exceed, instead of `ge`.
        le: the greatest number that the search takes.
        hint: the way out for a wrong value.
        served: the least and the most that a request to a server may ask for: a number's value, a list's number of
            words, a text's number of characters. None: whatever the search takes.
        slider: the values of the page's slider; "off" leaves the option out. Without it, the page has a text field.
        text: whether words come as one text, not one by one.
    """

    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    mode: Literal["beam", "sample"] | None = None
    ge: float = 0
    gt: float | None = None
    le: float | None = None
    hint: str = ""
    served: tuple[float, float] | None = None
    slider: tuple[str, ...] = ()
    text: bool = False

    def check(self, name: str, kind: type, value: Any) -> None:
        """Raise UsageError if the value is not of its kind or out of its range."""
        if kind is str and not isinstance(value, tuple):
            raise UsageError(f"{name} is {value!r}, not a tuple of words.", "Write ('word',).")
        if kind is int and (isinstance(value, bool) or not isinstance(value, int) or not self._holds(value)):
            most = "up" if self.le is None else f"to {self.le}"
            raise UsageError(f"{name} is {value!r}, not a whole number from {self.ge} {most}.", self.hint)
        if kind is float and not self._holds(value):
            least = f"{self.ge} or more" if self.gt is None else f"over {self.gt}"
            most = "" if self.le is None else f" and at most {self.le}"
            raise UsageError(f"{name} is {value}, not {least}{most}.", self.hint)

    def _holds(self, value: float) -> bool:
        least = value >= self.ge if self.gt is None else value > self.gt
        return least and (value < math.inf if self.le is None else value <= self.le)


def option(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:
    """Declare a field of `SearchOptions`; `more` is for `Option`."""
    about = Option(help=help, metavar=metavar, **more)
    return field(default=default, metadata={"option": about, "description": help})  # pydantic uses the description


@dataclass(frozen=True)
class SearchOptions:
    """How captions are searched. Contradictions are refused when the object is made.

    A hypothesis is ranked by `log_prob / T ** length_penalty`, where its T tokens include `<end>`, as
    `log_prob` does. Words are counted without it; those of the prefix count, and the other rules apply to them too.

    Groups make the search a diverse beam search: a word counts as less likely, by `diversity` in log-probability, for
    each hypothesis of an earlier group that says it at the same place.

    With required words, the beam follows `beam` hypotheses for each number of required words (or tokens of them) that
    have been said, which takes several times as long. The vocabulary must be able to spell required words, but not
    banned ones. A longer word that begins with a word's tokens ("dog" + "##gy") counts as saying that word: it is
    banned with it, and it satisfies the requirement.

    Raises:
        UsageError: a value is out of its range, or two options contradict each other.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    beam: int = option(
        3,
        "Captions that beam search keeps at each step; 1 is greedy search.",
        "K",
        mode="beam",
        ge=1,
        le=MOST,
        served=(1, 20),
        slider=tuple(map(str, range(1, 11))),
    )
    groups: int = option(
        1,
        "Diverse beam search: groups of the beam that avoid each other's words.",
        "G",
        mode="beam",
        ge=1,
        le=MOST,
        served=(1, 20),
    )
    diversity: float = option(
        0.5,
        "How strongly groups avoid each other's words; usually 0.2 to 0.8.",
        "D",
        mode="beam",
        hint="Useful values are 0.2 to 0.8.",
        served=(0, 10),
    )
    like_generate: bool = option(
        False, "End captions exactly as transformers' generate does; slower, and seldom better.", mode="beam"
    )
    sample: bool = option(False, "Draw words at random instead of searching.", mode="sample")
    num: int = option(
        1, "Captions for each image, best first.", "N", flags=("--num", "-n"), ge=1, le=MOST, served=(1, 20)
    )
    temperature: float = option(
        1.0,
        "Below 1, likely words are drawn more often; above 1, less often.",
        "T",
        mode="sample",
        gt=0,
        hint="For the most likely words use beam=1.",
        served=(0.05, 10),
        slider=tuple(f"{tenths / 10:.1f}" for tenths in range(1, 21)),
    )
    top_k: int | None = option(
        None,
        "Draw only from this many of the likeliest words.",
        "K",
        mode="sample",
        ge=1,
        served=(1, 100_000),
        slider=("off", "1", "2", "3", "5", "10", "20", "50", "100", "200"),
    )
    top_p: float | None = option(
        None,
        "Draw only from the likeliest words whose probabilities add up to this.",
        "P",
        mode="sample",
        gt=0,
        le=1,
        hint="Try top_p=0.9.",
        slider=(*(f"{hundredths / 100:.2f}" for hundredths in range(5, 100, 5)), "off"),
    )
    seed: int = option(
        0, "The same seed draws the same captions, whatever the batch.", "N", mode="sample", served=(0, 2**53 - 1)
    )
    length_penalty: float = option(
        0.7,
        "Score captions by log-probability / length ** this: 0 favours short ones, 1 long ones.",
        "P",
        le=10,
        hint="Useful values are 0 to 1.",
        served=(0, 10),
    )
    min_words: int = option(1, "The fewest words of a caption.", "N", served=(0, 50))
    max_words: int = option(20, "The most words of a caption; longer ones are cut.", "N", ge=1, served=(1, 50))
    no_repeat_ngram: int = option(0, "No caption repeats a run of this many words; 0 allows it.", "N", served=(0, 50))
    banned_words: tuple[str, ...] = option(
        (), "Words that no caption may contain.", "WORD", flags=("--ban",), served=(0, 100)
    )
    prefix: tuple[str, ...] = option((), "Words that every caption begins with.", "TEXT", text=True, served=(0, 500))
    require: tuple[str, ...] = option(
        (),
        "Words that every finished caption must contain, anywhere; beam search only.",
        "WORD",
        mode="beam",
        served=(0, 3),
    )
    allow_unknown: bool = option(False, "Allow <unk> in captions, as some papers do when they compute scores.")

    def __post_init__(self) -> None:
        for name, kind, option in declared():
            value = getattr(self, name)
            if value is not None or getattr(SearchOptions, name) is not None:
                option.check(name, kind, value)
        if self.min_words > self.max_words:
            raise UsageError(
                f"min_words is {self.min_words}, over max_words ({self.max_words}).",
                "Lower one or raise the other.",
            )
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
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
                    f"require and {name} are both set, but only a beam without groups can require words.",
                    f"Leave out require or {name}.",
                )
        if self.groups == 1 and self.diversity != 0.5:
            raise UsageError("diversity is set, but only groups use it.", "Set groups too, or leave it out.")
        if self.sample:
            if self.groups > 1:
                raise UsageError(f"groups is {self.groups}, but sampling has no groups.", "Leave out groups or sample.")
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


@cache
def declared() -> tuple[tuple[str, type, Option], ...]:
    """Each option's name, the type of its value (str: words), and its declaration."""
    types = get_type_hints(SearchOptions)
    return tuple(
        (each.name, next(iter(get_args(types[each.name])), types[each.name]), each.metadata["option"])
        for each in fields(SearchOptions)
    )
