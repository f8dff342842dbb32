"""Scripts that part their words by no spaces (Chinese, Japanese, Thai, ...): there each letter counts as a word."""

import re
from collections.abc import Sequence
from itertools import chain
from unicodedata import category, normalize

# Thai, Lao, Myanmar, Khmer, kana and Han, as ranges that both Python's and Rust's expressions understand.
LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
MARKS = "".join(c for c in map(chr, chain(range(0x0E00, 0x17E0), range(0x3099, 0x309B))) if category(c)[0] == "M")
LETTER = f"[{LETTERS}][{MARKS}]*"
"""An expression of one letter of these scripts with the vowel signs and tones on it."""

WORD = re.compile(rf"{LETTER}|(?:(?![{LETTERS}])\w)+")
UNSPACED = re.compile(f"[{LETTERS}]")


def lacks_spaces(captions: Sequence[str]) -> bool:
    """Whether a language is written in such a script: half of its captions or more hold a letter of one."""
    return 2 * sum(UNSPACED.search(caption) is not None for caption in captions) >= max(len(captions), 1)


def words_of(caption: str) -> list[str]:
    """The words, in small letters: each letter of such a script, and what stands between other signs and spaces."""
    return WORD.findall(normalize("NFC", caption).lower())
