"""Languages: how to recognise the language of captions, and what it means for their words.

Scripts without spaces between words (Chinese, Japanese, Thai, ...) are recognised by their letters; there each letter
counts as a word.
"""

import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from unicodedata import category, name, normalize

ENGLISH = "en"
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "km": "Khmer", "ko": "Korean", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "my": "Burmese",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""The languages that are recognised, by their ISO 639-1 codes."""
OF_SCRIPT = {
    "CJK": "zh", "THAI": "th", "LAO": "lo", "KHMER": "km", "MYANMAR": "my", "HANGUL": "ko", "GREEK": "el",
    "HEBREW": "he", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "ARABIC": "ar", "CYRILLIC": "ru",
    "DEVANAGARI": "hi",
}  # fmt: skip
"""The language of a script: the only one in `NAMES`, or else the likeliest."""
KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
KANA_SHARE = 0.05  # of the letters: a Chinese caption may name a shop with one
SHARED_SCRIPTS = ("LATIN", "ARABIC", "CYRILLIC", "DEVANAGARI")
ENGLISH_WORDS, ENGLISH_SHARE = frozenset({"the", "with", "and"}), 0.02  # 5 % of the words of English captions
SAMPLE = 300  # captions that are enough to recognise a language
MARGIN, SHARE = 20.0, 0.1  # another language must be likelier than English by so many nats, and by this share
CASE_MATTERS = frozenset({"de"})  # nouns begin with a capital letter
DOTLESS = frozenset({"tr"})  # the capital of ı is I, and that of i is İ
DOTTED = (("İ", "i"), ("I", "ı"))

# Thai, Lao, Myanmar, Khmer, kana and Han, as ranges that both Python's and Rust's expressions understand.
LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
MARKS = "".join(c for c in map(chr, chain(range(0x0E00, 0x17E0), range(0x3099, 0x309B))) if category(c)[0] == "M")
LETTER = f"[{LETTERS}][{MARKS}]*"
"""A regular expression for one letter of these scripts with its vowel signs and tones."""

WORD = re.compile(rf"{LETTER}|(?:(?![{LETTERS}])\w)+")
UNSPACED = re.compile(f"[{LETTERS}]")


def language_of(captions: Sequence[str]) -> str:
    """The language of most of the captions, as a code in `NAMES`; English if it can't be recognised.

    py3langid tells languages with the same script apart. If it isn't installed, the script alone decides:
    Latin letters are taken for English.
    """
    sample = captions[:: max(1, len(captions) // SAMPLE)][:SAMPLE]
    text = " ".join(sample)
    words = text.lower().split()
    if sum(word in ENGLISH_WORDS for word in words) > ENGLISH_SHARE * len(words):
        return ENGLISH
    scripts = Counter(name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    if lacks_spaces(sample) and sum(scripts[kana] for kana in KANA) > KANA_SHARE * scripts.total():
        return "ja"
    script = max(scripts, key=lambda each: scripts[each], default="LATIN")
    if script not in SHARED_SCRIPTS or find_spec("py3langid") is None:
        return OF_SCRIPT.get(script, ENGLISH)
    import py3langid

    likelihoods = {code: likelihood for code, likelihood in py3langid.rank(text) if code in NAMES}
    best = max(likelihoods, key=lambda code: likelihoods[code])
    margin = max(MARGIN, SHARE * abs(likelihoods[ENGLISH]))
    return best if likelihoods[best] > likelihoods[ENGLISH] + margin else ENGLISH


def lacks_spaces(captions: Sequence[str]) -> bool:
    """Whether a language is written without spaces: at least half of its captions hold a letter of such a script."""
    return 2 * sum(UNSPACED.search(caption) is not None for caption in captions) >= max(len(captions), 1)


def words_of(caption: str) -> list[str]:
    """The words in lower case: each letter of such a script, and whatever is between other signs and spaces."""
    return WORD.findall(normalize("NFC", caption).lower())


def lowered(caption: str, language: str) -> str:
    """The caption in lower case, by the rules of the language."""
    for capital, small in DOTTED if language in DOTLESS else ():
        caption = caption.replace(capital, small)
    return caption.lower()
