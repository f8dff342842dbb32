r"""Tokens of the official COCO code: Penn Treebank tokens in lower case, without punctuation.

Written from the official tokeniser's behaviour. A caption is read from left to right; at each place the rule
that reads furthest wins, and the earlier one of two equals. Four captions in five contain only words, commas and a
final full stop, and are split by one expression.

Some things may surprise, but everybody scores like this: brackets stay, as ``-lrb-`` and ``-rrb-``, and so do
``!!``, ``&`` and ``$``; ``here.He`` is one token; whether a final initial (``"a sign that reads K."``) keeps its full
stop depends on the first word of the *next* caption. Line breaks inside a caption are spaces; in the
official code some of them move all later captions to the wrong image.

No rule can backtrack over more than the text it has read: repetitions are possessive (``*+``, ``++``) or stop
at a character that they can't match.
"""

import re
from collections.abc import Sequence

PUNCTUATION = frozenset(
    ['"', "'", "''", "’", "`", "``", ".", "...", "....", "?", "!", ",", ":", "-", "--", "---", "----", ";"]
)
WRITTEN_AS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "¢": "cents", "£": "#", "€": "$", "¤": "$",
    "₠": "$", "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip
LINE_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x85\u2028\u2029"), " ")
QUOTES = str.maketrans({"‘": "`", "’": "'", "“": "``", "”": "''"})

# Abbreviations that keep their full stop.
ABBREVIATIONS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros calif capt cf "
    "cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb "
    "fla fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd "
    "maj mar md messrs mich minn mlle mme mo mon mont mr mrs ms msgr mt natl neb nev nov oct okla penn "
    "pfc ph plc pres prof pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt sys "
    "tel tenn thu tue tues univ va vs vt wed wis wisc wm wyo ph\\.d"
).replace(" ", "|")
CAPITAL_ABBREVIATIONS = "ark az del ill la mass miss ore pa tex wash".replace(" ", "|")  # begin with a capital
SMALL_ABBREVIATIONS = "[mM][ft]g|[pP]p?t[ey]s?"  # not in capitals
NUMBER_ABBREVIATIONS = "art ca figs? nos? op pp prop".replace(" ", "|")  # before a number
# An initial loses its full stop before one of these words, as if it ended a sentence.
STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many "
    "More Now Once One Other Our She Since So Some Such That The Their Then There These They This We What "
    "When While Yet You"
).replace(" ", "|")
SPLIT_WORDS = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])

NOT_WORD = r"\W_²³¹¼-¾⁰-₎℀-⯿\U00010000-\U0010FFFF"
Q = "['’‘`]"  # an apostrophe inside a word
W = f"[^{NOT_WORD}]"  # a letter or a digit
L = rf"[^\d{NOT_WORD}]"  # a letter
MARK = r"\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065e"
A = "[A-Za-z]"
AN = "[A-Za-z0-9]"
SPACES = r"[ \t\xa0]"
TAG = "[A-Za-z0-9.:-]*+"
URL_TAIL = r"""[^ \t\xa0\n"<>|()]+[^ \t\xa0\n"<>|.!?(){},-]"""
EMAIL = r"""[^ \t\xa0\n"<>|()]{0,64}@[^ \t\xa0\n"<>|().]++(?:\.[^ \t\xa0\n"<>|().]++)*+"""
WORD = rf"(?:{L}|[{MARK}])(?:{W}|[{MARK}])*+"
PART = rf"(?:[dDoOlL]{Q}{W}{W}++|{W}++)"  # d'or, o'clock
THING = rf"{PART}(?:[-_]{PART})*+"
# The bound keeps "a,a,a,a,..." from being read to the end at each of its commas.
LIST = rf"{AN}++(?:[.,]++{AN}*+){{0,30}}+"
HYPHENED = rf"(?:{LIST}-)?(?:{AN}++-)*+"
SLASHED = rf"{AN}++(?:-{A}++){{0,2}}+"
DOTTED = rf"{L}{W}*+(?:[.!?]{L}{W}*+)++"

# Each rule is an expression. Its first group, if it has one, is the token; what follows must match, too, and counts in
# the length that decides between the rules.
LETTER_RULES = [
    "(?i:(can)not|(gon)na|(got)ta|(lem)me|(gim)me|(wan)na)",
    WORD,
    THING,
    rf"{SLASHED}/{SLASHED}(?:/{SLASHED})?",  # and/or, a/b/c, 1/2-inch
    DOTTED,  # here.He
    rf"{LIST}(?:-{AN}++)++",  # 1.5-inch, "front,-back"
    rf"{HYPHENED}(?:{A}\.){{2,}}+",  # U.S., non-U.S.
    rf"(?i:{ABBREVIATIONS})\.",
    rf"(?=[A-Z])(?i:{CAPITAL_ABBREVIATIONS})\.",
    rf"(?:{SMALL_ABBREVIATIONS})\.",
    rf"((?i:{NUMBER_ABBREVIATIONS})\.){SPACES}*+\d",
    rf"{A}\.(?!{SPACES}*+\n?{SPACES}*+(?<=\s)(?=[A-Z])(?i:{STARTERS})\s)",
    rf"((?:{WORD}|{THING}|{DOTTED})\.)[,;:]",  # "the bat.," keeps its full stop
    rf"({A}*[A-MO-Za-mo-z])[nN]{Q}[tT]",  # do n't
    rf"[nN]{Q}[tT]{L}*+",
    rf"({WORD})(?:'(?i:s|m|d|ll|re|ve)(?!{A})|’(?i:s|m|d|ll|re|ve))",  # dog 's
    rf"[A-HJ-XZn]{Q}{A}{A}++",
    rf"{L}{L}*?[aeiouyAEIOUY]{Q}[aeiouA-Z]{L}*+",  # ma'am
    r"(?i:[dlj]|ol)['’]",
    rf"([yY]['’]){A}",
    rf"(?i:c{Q}mon|c{Q}est|s{Q}mores|li{Q}l|e{Q}er|ev{Q}ry|cap{Q}n|somethin{Q}|dunkin{Q})",
    r"[fFcC]#|[cC]\+\+|(?i:anti|pro)-",
    r"[A-Z]++(?:(?:&(?:amp;)?|\+)[A-Z]++)++",  # AT&T
    r"[A-Z]++\$",  # US$
    rf"{AN}{EMAIL}>?",
    rf"https?://{URL_TAIL}",
    rf"(?:(?i:www)(?:\.{AN}++)++|[a-z]{AN}*+(?:\.[a-z]{AN}*+)*?\.(?i:com|net|org|edu))/{URL_TAIL}",
]
NUMBER = r"[-+]?(?:\d++(?:[.,:]\d++)*+|(?:[.,:]\d++)++)"
FRACTION = rf"[-+]?\d++{SPACES}\d++/\d++"
APOSTROPHE_RULES = [
    rf"'(?i:s|m|d|ll|re|ve)(?!{A})|’(?i:s|m|d|ll|re|ve)",
    r"['’](?i:em|till?|cause)",
    r"['’][nN]['’]|'[nN](?=\s)|’[nN]",
    r"('[tT])(?i:is|was)",
    r"['’](?:\d\d|\d0s)(?=\s)",
]
OTHER_RULES = [
    NUMBER,
    rf"\(\d{{2,3}}\){SPACES}?\d{{3,4}}-\d{{4}}",  # telephone
    rf"[<>]?[:;=][-o*']?[][()DPdp|@{{[\\](?!{AN})",  # :-)
    r"\([-^x=~<>']_[-^x=~<>']\)|[-^x=~<>']_[-^x=~<>']",
    rf"""<[/!?]?{A}{TAG}(?:[ ]++{A}{TAG}=?(?:"[^"<>\n]*+")?)*+[ ]*+/?>|<!--[^\n<>]*-->""",
    rf"<{AN}{EMAIL}>?",
    rf"#{L}++",
    r"@[A-Za-z_][A-Za-z0-9_]*+",
    r"[?!]++",
    r"\.{3,4}",
    r"--++",
    r"[‘’“”]{2}",
    r"_++",
    r"#++",
    r"@++",
    "''|``",
    "&(?:amp|lt|gt|quot);",
    r"&#\d+;",
    r"<<|>>",
    r"\*++",
    r"""[!-/:-@[-`{-~¡¥-©¬®-´¶-¹¿×÷\u037e\u0387\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b-\u2042⁰⁴-⁾₀-₎]""",
    r"[¢£¤€₠¼-¾℀-⯿、。〒〓・]",
]
LETTER = [re.compile(rule) for rule in [*LETTER_RULES, FRACTION, NUMBER]]
OTHER = [re.compile(rule) for rule in OTHER_RULES]
APOSTROPHE = [*(re.compile(rule) for rule in APOSTROPHE_RULES), *OTHER]
WORD_CHARACTER = re.compile(rf"{W}|[{MARK}]")

PLAIN_WORD = rf"{A}{AN}*+(?:-{AN}++)*+"
PLAIN = re.compile(rf" *+{PLAIN_WORD}(?:,*+ [ ,]*+{PLAIN_WORD})*+[ ,]*+(\.?) *+")
KEEPS_ITS_STOP = re.compile(
    rf"{ABBREVIATIONS}|{CAPITAL_ABBREVIATIONS}|{SMALL_ABBREVIATIONS}|{NUMBER_ABBREVIATIONS}|{A}",
    re.IGNORECASE,
)
SIMPLE = re.compile(rf"{A}++(?=[ \n]|,[ \n])")
CURLY = re.compile(r"’(?:s|m|d|ll|re|ve)|n[’‘]t|[‘’“”]{2}", re.IGNORECASE)


def tokenise(captions: Sequence[str], *, order_independent: bool = False) -> list[str]:
    """The tokens of each caption, joined by spaces.

    Args:
        captions: as people wrote them, in the order of the official code: all captions of one image, then those of
            the next.
        order_independent: treat a final initial as if no caption followed, so that a caption's tokens are
            the same in any order.
    """
    tokens = []
    for number, caption in enumerate(captions):
        found = plain_tokens(caption)
        if found is None:
            last = order_independent or number + 1 == len(captions)
            found = _scan(caption, "" if last else captions[number + 1])
        tokens.append(found)
    return tokens


def plain_tokens(caption: str) -> str | None:
    """The tokens of a caption of plain words, commas and a final full stop; None for any other caption."""
    plain = PLAIN.fullmatch(caption)
    if not plain:
        return None
    words = caption.lower().replace(",", " ").rstrip(" .").split()
    if plain[1] and KEEPS_ITS_STOP.fullmatch(words[-1]):
        return None
    return " ".join(words) if SPLIT_WORDS.isdisjoint(words) else None


def _scan(caption: str, following: str) -> str:
    text = f"{caption.translate(LINE_BREAKS)}\n{following.translate(LINE_BREAKS)}\n"
    tokens = []
    place = 0
    while place < len(caption):
        simple = SIMPLE.match(text, place)
        token = simple[0] if simple and simple[0].lower() not in SPLIT_WORDS else _longest(text, place)
        place += max(len(token), 1)  # spaces, and characters without a rule, are left out
        written = _written(token)
        if written and written not in PUNCTUATION:
            tokens.append(written)
    return " ".join(tokens)


def _longest(text: str, place: int) -> str:
    """The token of the rule that reads furthest from `place`; empty if there is none."""
    if text[place].isspace():
        return ""
    rules = LETTER if WORD_CHARACTER.match(text, place) else APOSTROPHE if text[place] in "'’" else OTHER
    furthest, token = place, ""
    for rule in rules:
        match = rule.match(text, place)
        if match and match.end() > furthest:
            furthest, token = match.end(), match[match.lastindex or 0]
    return token


def _written(token: str) -> str:
    """The token as the official code writes it."""
    if len(token) < 2 or token[0] == "&":
        return WRITTEN_AS.get(token, token.lower())
    if CURLY.fullmatch(token):
        token = token.translate(QUOTES)
    # The space inside "22 3/4" becomes one that does not separate tokens; brackets in smileys get their names, too.
    return token.lower().replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\xa0")
