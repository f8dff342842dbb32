import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.metrics.official.ptb import plain_tokens, tokenise

DATA = os.environ.get("SHOWTELL_TEST_DATA")

# What the official code makes of these, one caption a line.
OFFICIAL = {
    "A man's dog can't see; it's the dogs' ball.": "a man 's dog ca n't see it 's the dogs ball",
    "I cannot, I'm gonna, y'all lemme": "i can not i 'm gon na y' all lem me",
    "rock'n'roll, ten o'clock, ma'am, 'tis Hallowe'en": "rock 'n' roll ten o'clock ma'am 't is hallowe'en",
    "It’s a dog’s “life” … isn’t it": "it 's a dog 's life is n't it",
    'man (left) & woman -- "smiling" ... at 3:30p.m.': "man -lrb- left -rrb- & woman smiling at 3:30 p.m.",
    "St. Patrick on Sunset Blvd.": "st. patrick on sunset blvd.",
    "a river.A group, getting ready to bat.,": "a river.a group getting ready to bat.",
    "two-year-old w/ U.S. flag 50/50 and/or": "two-year-old w / u.s. flag 50/50 and/or",
    "$5.00 & 50% off! 6:40PM 22 3/4 inch £5 ½": "$ 5.00 & 50 % off 6:40 pm 22\u00a03/4 inch # 5 1/2",
    "a_b @home #dog www.foo.com/bar me@foo.org AT&T": "a_b @home #dog www.foo.com/bar me@foo.org at&t",
    "no. 5, no. Wow!! What?! [a] {b}": "no. 5 no wow !! what ?! -lsb- a -rsb- -lcb- b -rcb-",
    "café naïve 🐕 日本": "café naïve 日本",
    "dog:cat x=y a/ b- :)": "dog cat x = y a / b :-rrb-",
    "": "",
    " . , ": "",
}


@pytest.mark.parametrize("caption", OFFICIAL)
def test_as_the_official_code(caption: str) -> None:
    assert tokenise([caption]) == [OFFICIAL[caption]]


def official_cases() -> dict[str, tuple[list[str], list[str]]]:
    """Captions in the official order, and their tokens."""
    folder = Path(DATA or "") / "eval"
    hard = json.loads((folder / "ptb_hard_captions.json").read_text())
    cases = {"hard": (hard["captions"], hard["tokens"])}
    for name in ["coco_demo", "coco", "flickr8k_dev"]:
        read = {f: json.loads((folder / name / f"{f}.json").read_text()) for f in ["predictions", "references"]}
        tokens = json.loads((folder / name / "ptb_tokens.json").read_text())
        order = json.loads((folder / name / "scores.json").read_text())["image_order"]
        predicted = {row["image_id"]: row["caption"] for row in read["predictions"]}
        written: dict[object, list[str]] = {i: [] for i in order}
        for row in read["references"]["annotations"]:
            written[row["image_id"]].append(row["caption"])
        cases[name] = ([predicted[i] for i in order], [tokens["predictions"][str(i)][0] for i in order])
        cases[f"{name} references"] = (
            [c for i in order for c in written[i]],
            [t for i in order for t in tokens["references"][str(i)]],
        )
    return cases


@pytest.mark.skipif(not DATA, reason="SHOWTELL_TEST_DATA does not name a folder with eval/")
def test_all_official_tokens() -> None:
    total = 0
    for name, (captions, tokens) in official_cases().items():
        differ = [case for case in zip(captions, tokenise(captions), tokens, strict=True) if case[1] != case[2]]
        assert not differ, (name, differ[:3])
        total += len(captions)
    assert total == 16_831


def test_a_final_initial_is_judged_by_the_next_caption() -> None:
    """The official code reads all captions as one text."""
    sign = "a sign that reads K."
    assert tokenise([sign, "The dog"])[0] == "a sign that reads k"
    assert tokenise([sign, "Two dogs"])[0] == "a sign that reads k."
    assert tokenise([sign])[0] == "a sign that reads k."
    assert tokenise([sign, "The dog"], order_independent=True)[0] == "a sign that reads k."


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_line_breaks_are_spaces(line_break: str) -> None:
    """In the official code U+2028 begins a new line, and all later captions go to the wrong image."""
    assert tokenise([f"a dog{line_break}runs.", "two cats"]) == ["a dog runs", "two cats"]
    assert tokenise([f"a man's dog{line_break}"]) == ["a man 's dog"]


words = st.sampled_from(["A", "dog", "t-shirt", "x2", "St", "cannot", "K", "no", "Inc", "the", "mid-air", "gonna"])


@given(
    st.lists(st.tuples(words, st.sampled_from([" ", ", ", "  ", " , "])), max_size=6),
    st.sampled_from(["", ".", " ."]),
)
def test_short_way_equals_the_rules(parts: list[tuple[str, str]], end: str) -> None:
    """Plain captions are split by one expression; a colon sends the same one through the rules."""
    caption = "".join(word + gap for word, gap in parts).rstrip(" ,") + end
    slow = tokenise([": " + caption])[0]
    assert plain_tokens(caption) in (None, slow)
    assert tokenise([caption])[0] == slow


@given(st.lists(st.text(max_size=30), max_size=4), st.booleans())
def test_any_text_gives_one_line_of_lower_case_tokens(captions: list[str], alone: bool) -> None:
    tokens = tokenise(captions, order_independent=alone)
    assert len(tokens) == len(captions)
    for line in tokens:
        assert line == line.strip(" ")
        assert "  " not in line
        assert not set(line) & set("\n\r\v\f\x85\u2028\u2029")


@given(
    st.lists(st.text(alphabet="aK.,'-/:3 (<&@#_’\"?", max_size=12), min_size=1, max_size=4),
    st.text(max_size=9),
)
def test_order_independent_tokens_do_not_depend_on_the_others(captions: list[str], other: str) -> None:
    alone = [tokenise([caption])[0] for caption in captions]
    assert tokenise([*captions, other], order_independent=True)[:-1] == alone


REPEATED = [
    "a", "a,", "a.", "a'", "a-", "a/", "a ", "a, ", "1,", "1:", "1/", ".", "-", "'", "<", "<a", "<a ",
    "<!--", "(", "@", "a@", "a.a@", "&", "http://", "http://(", "www.", "a.com", "a.com/", "A.", "K. ",
    "n't", "a'a", "_", "a_", "#a", "St.", "a.,", "x!", "’", "$", "1 1", "1/1 ", ":-", '<a b="', "-1", "o'",
    "a\u0301", "½", "A&", ",", " ,", "a b-", "a-b ",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED)
def test_no_caption_takes_long(piece: str) -> None:
    """An expression that backtracks exponentially, or reads to the end at each place, hangs a server."""
    for caption in [piece * (8_000 // len(piece)), piece * (8_000 // len(piece)) + "!"]:
        begin = time.perf_counter()
        tokenise([caption, caption])
        assert time.perf_counter() - begin < 2


@settings(max_examples=30)
@given(st.lists(st.sampled_from(REPEATED), min_size=2, max_size=4), st.integers(0, 2**32))
def test_no_mixture_takes_long(pieces: list[str], seed: int) -> None:
    draw = random.Random(seed)
    caption = "".join(draw.choices(pieces, k=1500))
    begin = time.perf_counter()
    tokenise([caption])
    assert time.perf_counter() - begin < 2
