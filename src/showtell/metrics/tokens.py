"""From captions as people write them to the tokens that metrics count, which are the usual ones of each language."""

from collections.abc import Callable, Sequence
from functools import cache
from unicodedata import normalize

from showtell.errors import UsageError, needs
from showtell.languages import ENGLISH, NAMES, language_of, lowered, words_of
from showtell.metrics.official.ptb import tokenise

BY_LETTER = frozenset({"th", "lo", "km", "my"})  # written without spaces, and without a tokenizer in sacrebleu
SACREBLEU = {"zh": "zh", "ja": "ja-mecab"}
"""sacrebleu's tokenizers for languages that don't use `intl`."""


def tokens_of(captions: Sequence[str], language: str | None = None, *, order_independent: bool = True) -> list[str]:
    """The tokens of each caption in lower case and without punctuation, joined by spaces.

    English has Penn Treebank tokens, as in the official code; Chinese, Japanese and the other languages have those
    of sacrebleu (`zh`, `ja-mecab`, `intl`); Thai, Lao, Khmer and Burmese their letters.

    Args:
        captions: as people wrote them.
        language: a code such as "de"; None to detect it from the captions.
        order_independent: see `ptb.tokenise`.

    Raises:
        UsageError: no language has that code.
        MissingExtraError: sacrebleu is not installed, and the language needs it.
    """
    language = known_language(language) or language_of(captions)
    if language == ENGLISH:
        return tokenise(captions, order_independent=order_independent)
    if language in BY_LETTER:
        return [" ".join(words_of(caption)) for caption in captions]
    with needs("languages", f"Scoring captions in {NAMES[language]}"):
        if language == "ja":
            import ipadic  # noqa: F401  # sacrebleu reports less clearly that they are missing
            import MeCab  # noqa: F401
        cut = _tokenizer(sacrebleu_tokens(language))
    return [
        " ".join(token for token in cut(lowered(text, language)).split() if any(map(str.isalnum, token)))
        for text in (normalize("NFC", caption) for caption in captions)
    ]


def known_language(code: str | None) -> str | None:
    """The code as it is, or None. Raises UsageError if no language has it."""
    if code is not None and code not in NAMES:
        raise UsageError(f"There is no language {code}.", f"Choose from: {', '.join(NAMES)}.")
    return code


def tokens_name(language: str, *, order_independent: bool = False) -> str:
    """The name of a language's tokens in signatures."""
    if language == ENGLISH:
        return "ptb-each-alone" if order_independent else "ptb"
    return "letters" if language in BY_LETTER else sacrebleu_tokens(language)


def sacrebleu_tokens(language: str) -> str:
    """The name of sacrebleu's tokenizer for a language."""
    return "13a" if language == ENGLISH else "char" if language in BY_LETTER else SACREBLEU.get(language, "intl")


@cache
def _tokenizer(name: str) -> Callable[[str], str]:
    from sacrebleu.metrics.bleu import BLEU

    cut: Callable[[str], str] = BLEU(tokenize=name).tokenizer
    return cut
