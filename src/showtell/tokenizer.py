"""Words and ids: the table that turns a caption into ids and back.

The work is done by Hugging Face `tokenizers`, and what is saved is its own JSON, so that other programs can
read it. How words are found: the caption is brought to Unicode form NFC, lower-cased and stripped, typographic
apostrophes become ``'``; then every run of letters and digits is a word, with hyphens and apostrophes kept
inside it (``t-shirt``, ``dog's``). German keeps its capitals, and Turkish has its own small letter of I. Where captions
are in a script without spaces (Chinese, Japanese, Thai), each of its letters is a word. Everything else separates
words and is dropped, so a caption that spells out ``<end>`` holds the word ``end`` and never the special token.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import tokenizers
from pydantic import BaseModel, ConfigDict, Field, field_validator
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from showtell.errors import BundleError, DataError
from showtell.files import read_text, write_file
from showtell.languages import (
    CASE_MATTERS,
    DOTLESS,
    DOTTED,
    ENGLISH,
    LETTER,
    LETTERS,
    MARKS,
    NAMES,
    lacks_spaces,
    language_of,
)

SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
JOINS = r"['\-\u200c\u200d]"  # Persian and Indian words contain joiners, which don't separate words
WORD = rf"[\p{{L}}\p{{M}}\p{{N}}]+(?:{JOINS}[\p{{L}}\p{{M}}\p{{N}}]+)*"
OTHER = rf"(?:(?![{LETTERS}])[\p{{L}}\p{{M}}\p{{N}}])+"
LETTER_OR_WORD = rf"{LETTER}|{OTHER}(?:{JOINS}{OTHER})*"
LEAST_COUNTS = ((1_000, 1), (5_000, 2), (20_000, 3))
"""Up to this many captions, words that occur this often are kept; with more captions, those that occur 5 times."""
WORD_MARK = "▁"  # begins the first piece of a word in a BPE table, so that decoding knows where spaces go
SPACE = "Ġ"  # how a byte-level table (GPT-2) writes the space before a word, part of its first piece


class TokenizerConfig(BaseModel):
    """How the table of words is made from the training captions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["word", "bpe"] = Field(
        default="word", description="an id for each word, or for each piece of a word (BPE)"
    )
    min_count: int | None = Field(
        default=None,
        ge=1,
        description="words (with BPE: pairs of pieces) that occur fewer times are left out; "
        "by default 5, or less if there are few captions",
    )
    max_size: int | None = Field(
        default=None,
        ge=5,
        le=1_000_000,
        description="most ids, including the four special ones (by default no limit; with BPE 30,000)",
    )
    language: str | None = Field(
        default=None, description="language of the captions, as a code such as de; detected by default"
    )
    lowercase: bool | None = Field(
        default=None, description="treat A and a as the same letter; the default depends on the language: not in German"
    )
    letters: bool = Field(default=True, description="in scripts without spaces (Chinese, Thai), each letter is a word")

    @field_validator("language", mode="before")
    @classmethod
    def _known(cls, code: object) -> object:
        if code is False:  # YAML reads no, which is Norwegian, as false
            return "no"
        if code is not None and code not in NAMES:
            raise ValueError(f"there is no language {code}; choose from {', '.join(NAMES)}")
        return code

    def least_count(self, captions: int) -> int:
        """`min_count`, or its default for this many captions."""
        return self.min_count or next((least for most, least in LEAST_COUNTS if captions <= most), 5)


class Tokenizer:
    """A fixed table of words: ids 0 to 3 are ``<pad> <start> <end> <unk>``, then words, frequent first."""

    pad = 0
    start = 1
    end = 2
    unk = 3

    def __init__(self, table: tokenizers.Tokenizer) -> None:
        self._table = table
        self._mark = WORD_MARK if isinstance(table.model, models.BPE) else ""
        self._of_bytes = isinstance(table.decoder, decoders.ByteLevel)
        if self._of_bytes:
            self._mark = SPACE
        self._borrowed = self._of_bytes or isinstance(table.model, models.WordPiece)  # from a model trained elsewhere

    @classmethod
    def train(cls, captions: Iterable[str], config: TokenizerConfig | None = None) -> "Tokenizer":
        """Count the words of `captions` and keep the frequent ones; words with equal counts are in alphabetical order.

        Raises:
            DataError: no word is frequent enough to be kept.
        """
        config = config or TokenizerConfig()
        captions = list(captions)
        table = tokenizers.Tokenizer(models.BPE() if config.kind == "bpe" else models.WordLevel())
        letters = _set_words(table, captions, config)
        least = config.least_count(len(captions))
        table.train_from_iterator(map(_valid_unicode, captions), _trainer(config, least))
        if table.get_vocab_size() <= len(SPECIALS):
            raise DataError(
                f"No word occurs {least} times or more in the captions.",
                "Lower min_count or add captions.",
            )
        return cls(_without_added_tokens(table, letters=letters))

    def grown(self, captions: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
        """The table with new words after its own: words of the captions that it lacks, if they are frequent enough.

        Words are found by the captions' language if it is not English, or if the config names it.
        A table of pieces (`in_pieces`) is returned as it is: it spells what it can.
        """
        if self.in_pieces:
            return self
        words = self
        told = config.language is not None or config.lowercase is not None
        if told or language_of(captions) != ENGLISH:
            table = tokenizers.Tokenizer.from_str(self.to_json())
            letters = _set_words(table, captions, config)
            words = Tokenizer(_without_added_tokens(table, letters=letters))
        counts = Counter(word for caption in captions for word in words.words(caption) if words.id_of(word) is None)
        least = config.least_count(len(captions))
        new = sorted((word for word, times in counts.items() if times >= least), key=lambda word: (-counts[word], word))
        if config.max_size is not None:
            new = new[: max(0, config.max_size - len(self))]
        table = json.loads(words.to_json())
        table["model"]["vocab"] |= {word: len(self) + place for place, word in enumerate(new)}
        return Tokenizer.from_json(json.dumps(table))

    def begins(self, other: "Tokenizer") -> bool:
        """Whether `other` is this table, or this table with new words after its own (see `grown`)."""
        if self.in_pieces or other.in_pieces:  # these never grow
            return self.to_json() == other.to_json()
        own, others = json.loads(self.to_json()), json.loads(other.to_json())
        known, more = own["model"].pop("vocab"), others["model"].pop("vocab")
        return bool(own == others and known.items() <= more.items())

    @property
    def in_pieces(self) -> bool:
        """Whether ids are pieces of words (BPE, WordPiece), so that a word may have several."""
        return self._borrowed or bool(self._mark)

    def __len__(self) -> int:
        return self._table.get_vocab_size()

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """``<start>``, the caption's ids, ``<end>``; `max_words` cuts the caption, and the ``<end>`` stays."""
        return self.encode_batch([caption], max_words)[0]

    def encode_batch(self, captions: Sequence[str], max_words: int | None = None) -> list[list[int]]:
        """As `encode`, for many captions at once on all cores."""
        rows = self._table.encode_batch_fast([_valid_unicode(caption) for caption in captions])
        if max_words is None:
            return [row.ids for row in rows]
        return [
            ids if len(ids) <= max_words + 2 else [*ids[: max_words + 1], self.end] for ids in (r.ids for r in rows)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of `ids` joined by spaces, without the special ones."""
        return self._table.decode([int(i) for i in ids if i >= len(SPECIALS)], skip_special_tokens=False)

    def words(self, caption: str) -> list[str]:
        """The words of the caption, known or not; with a table of pieces from elsewhere, split at spaces."""
        normal = _valid_unicode(caption)
        if self._table.normalizer is not None:
            normal = self._table.normalizer.normalize_str(normal)
        if self._borrowed:
            return normal.split()
        return [word.removeprefix(self._mark) for word, _ in self._table.pre_tokenizer.pre_tokenize_str(normal)]

    def id_of(self, word: str) -> int | None:
        """The id of a word written as in `words`, or of a special token; None if the table lacks it."""
        found = self._table.token_to_id(self._mark + word)
        return self._table.token_to_id(word) if found is None else found

    def spell(self, text: str) -> tuple[int, ...] | None:
        """The ids of a text, without special ones; None if the table can't spell all of it."""
        ids = tuple(self.encode(text)[1:-1])
        return None if self.unk in ids else ids

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The ways to spell a word, at the beginning of a caption and inside; empty if the table can't.

        A spelling is the word's id, the ids of its pieces (BPE), or the ids of its letters if each letter is a word.
        Only a byte-level table has two ways.
        """
        written = (word, f" {word}") if self._of_bytes else (word,)
        return tuple(ids for each in written if (ids := self.spell(each)))

    def word_of(self, id: int) -> str:
        """The word of an id (with BPE: the piece, without its mark); IndexError if there is none."""
        word = self._table.id_to_token(id) if id >= 0 else None
        if word is None:
            raise IndexError(f"id {id} is not in 0..{len(self) - 1}")
        return word.removeprefix(self._mark)

    def to_json(self) -> str:
        """The table in the `tokenizer.json` format of Hugging Face."""
        return self._table.to_str(pretty=True)

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Read what `to_json` wrote.

        Raises:
            BundleError: it is not such a table, or ids 0 to 3 are not the special tokens.
        """
        try:
            table = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises Exception itself, whatever is wrong
            raise BundleError(
                f"This is not a tokenizer: {error}.", "Use the tokenizer.json of the trained model."
            ) from None
        found = tuple(table.id_to_token(i) for i in range(len(SPECIALS)))
        if found != SPECIALS:
            raise BundleError(
                f"The first ids of the tokenizer are {found}, not {SPECIALS}.",
                "Use the tokenizer.json of the model.",
            )
        return cls(table)

    def save(self, path: str | Path) -> None:
        """Write `to_json`, completely or not at all."""
        write_file(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what `save` wrote.

        Raises:
            BundleError: the file is missing or is no tokenizer.
        """
        try:
            return cls.from_json(read_text(Path(path)))
        except DataError as error:
            raise BundleError(error.problem, "Copy the model folder again.") from None
        except BundleError as error:
            raise BundleError(f"{path}: {error.problem}", error.way_out) from None


def _valid_unicode(caption: str) -> str:
    """The caption without lone surrogates, which Rust's strings can't hold."""
    return caption.encode("utf-8", "replace").decode("utf-8")


def _trainer(config: TokenizerConfig, least: int) -> trainers.Trainer:
    """What counts the words. The library sorts them by count, then alphabetically."""
    if config.kind == "bpe":
        return trainers.BpeTrainer(
            vocab_size=config.max_size or 30_000,
            min_frequency=least,
            special_tokens=list(SPECIALS),
            show_progress=False,
        )
    return trainers.WordLevelTrainer(
        vocab_size=config.max_size or 1_000_000,
        min_frequency=least,
        special_tokens=list(SPECIALS),
        show_progress=False,
    )


def _set_words(table: tokenizers.Tokenizer, captions: Sequence[str], config: TokenizerConfig) -> bool:
    """Let the table cut captions into words as their language does; returns whether each letter is a word."""
    language = config.language or language_of(captions)
    lowercase = language not in CASE_MATTERS if config.lowercase is None else config.lowercase
    cut: list[normalizers.Normalizer] = [normalizers.NFC(), normalizers.Replace("’", "'")]
    if lowercase:
        cut += [normalizers.Replace(*pair) for pair in DOTTED if language in DOTLESS]
        cut.append(normalizers.Lowercase())
    table.normalizer = normalizers.Sequence([*cut, normalizers.Strip()])
    letters = config.letters and lacks_spaces(captions)
    split = pre_tokenizers.Split(Regex(LETTER_OR_WORD if letters else WORD), behavior="removed", invert=True)
    mark = pre_tokenizers.Metaspace(WORD_MARK, "always")
    table.pre_tokenizer = pre_tokenizers.Sequence([split, mark]) if config.kind == "bpe" else split
    return letters


def _without_added_tokens(trained: tokenizers.Tokenizer, *, letters: bool) -> tokenizers.Tokenizer:
    """The same table, whose special tokens are plain entries of the model.

    The trainer also registers them as "added tokens", which the library searches in the text before
    anything else: a caption with a literal "<end>" in it would then end there.
    """
    model = json.loads(trained.to_str())["model"]
    if "merges" in model:
        merges = [tuple(pair) for pair in model["merges"]]
        table = tokenizers.Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>"))
        table.decoder = decoders.Metaspace(WORD_MARK, "always")
    else:
        table = tokenizers.Tokenizer(models.WordLevel(model["vocab"], unk_token="<unk>"))
    if letters:  # captions have no space between them, either
        join = table.decoder or decoders.WordPiece("<none>", cleanup=False)  # a space before each word but the first
        between = Regex(rf"(?<=[{LETTERS}{MARKS}]) (?=[{LETTERS}])")
        table.decoder = decoders.Sequence([join, decoders.Fuse(), decoders.Replace(between, "")])
    table.normalizer = trained.normalizer
    table.pre_tokenizer = trained.pre_tokenizer
    table.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", Tokenizer.start), ("<end>", Tokenizer.end)]
    )
    return table
