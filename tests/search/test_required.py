"""Required words: against a textbook's beam, against brute force, and what every caption must keep to."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.errors import UsageError
from showtell.search import SearchOptions, search
from showtell.search.rules import rules_for
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.search import textbook
from tests.search.scripted import END, ScriptedEngine, ScriptedVocabulary
from tests.search.test_beam import SureEngine, as_captions, beam_options, engines, found

REQUIRED = ("w4", "w5", "w6", "w5+6", "w5+5|4", "w4+5+6", "w6+4+6|5+4", "w4+4+5")


@st.composite
def required_options(draw: st.DrawFn) -> SearchOptions:
    """With each of the other rules, but the contradictions."""
    plain = draw(beam_options())

    def fits(word: str) -> bool:
        try:
            rules_for(dataclasses.replace(plain, require=(word,)), ScriptedVocabulary(7))
        except UsageError:
            return False
        return True

    words = [word for word in REQUIRED if fits(word)]
    room = plain.max_words - len(plain.prefix)
    require = draw(st.lists(st.sampled_from(words), max_size=min(3, room), unique=True)) if words else []
    return dataclasses.replace(plain, require=tuple(require))


@settings(max_examples=200, deadline=None)
@given(engines(sizes=st.integers(7, 14)), required_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_a_batch_finds_what_the_textbook_finds(engine, options, images) -> None:
    """Guards who is in which bank, the cut of each row's proposals, ends of the last bank only, batching."""
    for image, hypotheses in zip(images, found(engine, images, options), strict=True):
        assert as_captions(hypotheses) == textbook.beam(engine, image, options)


@settings(max_examples=100, deadline=None)
@given(engines(sizes=st.integers(7, 30)), required_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_captions_say_the_words(engine, options, images) -> None:
    """All of them if finished; of those that were cut off, none stands before one that says more."""
    for hypotheses in found(engine, images, options):
        lacking = [len(textbook.missing(each.tokens, options)) for each in hypotheses]
        finished = [each.finished for each in hypotheses]
        assert lacking == sorted(lacking)
        assert finished == sorted(finished, reverse=True)
        assert not any(count for count, ended in zip(lacking, finished, strict=True) if ended)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
@pytest.mark.parametrize("image", range(4))
@pytest.mark.parametrize(
    "require", [("w4",), ("w5", "w6"), ("w6", "w5", "w4"), ("w4", "w4"), ("w6+5",), ("w5+4|4+6", "w6+5")]
)
@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram": 1}, {"min_words": 3}, {"prefix": ("w6",)}])
def test_a_wide_enough_beam_finds_the_best_captions_there_are(length_penalty, image, require, rules) -> None:
    """3 words and `<end>`, up to 4 words: 121 captions, and the beam is wider than that."""
    engine = ScriptedEngine(size=7, sharpness=1.0, end_bonus=0.5)
    options = SearchOptions(
        beam=130, num=5, length_penalty=length_penalty, max_words=4, require=require, **{"min_words": 0} | rules
    )
    [hypotheses] = found(engine, [image], options)
    best = textbook.every_caption(engine, image, options)[:5]
    assert [each for each in as_captions(hypotheses) if each[2]] == best


@pytest.mark.parametrize("beam", [1, 3])
def test_the_least_likely_word_is_said(beam: int) -> None:
    """It is never among the K + 1 best: whoever cuts the proposals must keep it."""

    class Rare(ScriptedEngine):
        def log_probs(self, image: int, words: list[int]) -> np.ndarray:
            log_probs = super().log_probs(image, words)
            log_probs[37] = -60.0
            return log_probs

    [hypotheses] = found(Rare(size=50, end_bonus=2.0), [3], SearchOptions(beam=beam, num=beam, require=("w37",)))
    assert [(each.finished, each.tokens.count(37)) for each in hypotheses] == [(True, 1)] * beam


def test_a_word_waits_for_its_place() -> None:
    """Without a bank for those who haven't said it, a beam says it at once, or never if it is unlikely there."""

    class Late(SureEngine):
        def log_probs(self, image: int, words: list[int]) -> np.ndarray:
            log_probs = super().log_probs(image, words)
            if len(words) != 2:
                log_probs[5] = -9.0
            return log_probs

    [[best]] = found(Late(), [0], SearchOptions(beam=1, require=("w5",)))
    assert best.tokens == (4, 4, 5, 4, END)


@settings(max_examples=30, deadline=None)
@given(engines(sizes=st.just(10)), required_options())
def test_a_batch_of_8_equals_one_image_at_a_time(engine, options) -> None:
    together = found(engine, list(range(8)), options, attention=True)
    for image, hypotheses in enumerate(together):
        [alone] = found(engine, [image], options, attention=True)
        assert as_captions(hypotheses) == as_captions(alone)


def test_every_hypothesis_adds_up() -> None:
    """Guards the trace through banks: probabilities and attention rows belong to the words that they stand beside."""
    engine = ScriptedEngine(size=12)
    options = SearchOptions(beam=3, num=3, require=("w7", "w9"))
    images = [5, 11, 3]
    for image, hypotheses in zip(images, found(engine, images, options, attention=True), strict=True):
        assert len(hypotheses) == 3
        for each in hypotheses:
            before = [list(each.tokens[:t]) for t in range(len(each.tokens))]
            expected = [engine.log_probs(image, words)[word] for words, word in zip(before, each.tokens, strict=True)]
            assert each.token_log_probs == pytest.approx(expected, abs=1e-6)
            assert each.score == pytest.approx(sum(expected) / len(each.tokens) ** 0.7)
            np.testing.assert_array_equal(each.attention, [engine.attention(image, words) for words in before])


def test_captions_that_never_end_are_ranked_by_the_words_they_say() -> None:
    """Those that say none are the likeliest, and would stand first by their scores."""
    options = SearchOptions(beam=2, num=2, max_words=5, require=("w5", "w6"))
    [hypotheses] = found(ScriptedEngine(end_bonus=-50.0), [4], options)
    assert [each.finished for each in hypotheses] == [False, False]
    assert all({5, 6} <= set(each.tokens) for each in hypotheses)


def test_rules_that_leave_no_way_to_say_them_return_what_was_said() -> None:
    """The prefix repeats its word, which is forbidden, so nothing ever follows."""
    options = SearchOptions(beam=2, prefix=("w4", "w4"), require=("w5",), no_repeat_ngram=1)
    [[best]] = found(ScriptedEngine(), [0], options)
    assert (best.tokens, best.finished) == ((4,), False)


def test_all_words_are_asked_for_only_where_words_are_required() -> None:
    """Sorting a whole vocabulary in each step is what the others must not pay for."""
    engine = ScriptedEngine(size=50)
    found(engine, [1], SearchOptions(beam=2, min_words=0))
    assert {top for _, _, top in engine.asked} == {2 + 1 + 3}
    engine.asked.clear()
    found(engine, [1], SearchOptions(beam=2, require=("w7",)))
    assert {top for _, _, top in engine.asked} == {50}
    assert max(rows for _, rows, _ in engine.asked) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"require": ("w4", "w99")}, "require has the word 'w99', which this model never says. Choose another word."),
        (
            {"require": ("w4+5|5+4",), "banned_words": ("w6", "w5")},
            "require has 'w4+5|5+4', which banned_words makes impossible to say. Keep one of them.",
        ),
        (
            {"require": ("w6+4+5",), "banned_words": ("w4+5",)},
            "require has 'w6+4+5', which banned_words makes impossible to say. Keep one of them.",
        ),
        (
            {"require": ("w4+5+6|4+5+6+7",), "max_words": 2},
            "require has 'w4+5+6|4+5+6+7', which takes 3 tokens, over max_words (2). Raise max_words or leave it out.",
        ),
    ],
)
def test_words_that_captions_can_not_say_are_refused(options: dict, message: str) -> None:
    engine = ScriptedEngine()
    with pytest.raises(UsageError) as error:
        search(engine, engine.encode(np.arange(1)), SearchOptions(**options), ScriptedVocabulary())
    assert str(error.value) == message


def test_a_spelling_that_is_banned_is_no_way_to_say_a_word() -> None:
    options = SearchOptions(require=("w4+5|6",), banned_words=("w6",), beam=1)
    [[best]] = found(ScriptedEngine(end_bonus=1.0), [0], options)
    assert best.finished
    assert (4, 5) in textbook.runs(best.tokens, 2)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("ways", [[(37, 41, 37)], [(37, 41, 37, 41), (37, 37, 41)], [(37, 38, 39, 40, 41)]])
def test_the_least_likely_pieces_are_said_in_a_row(beam: int, ways: list[tuple[int, ...]]) -> None:
    """Whoever has begun a word is far less likely than all others, and is kept until it has said the rest."""

    class Rare(ScriptedEngine):
        def log_probs(self, image: int, words: list[int]) -> np.ndarray:
            log_probs = super().log_probs(image, words)
            log_probs[37:42] = -60.0
            return log_probs

    word = "w" + "|".join("+".join(map(str, way)) for way in ways)
    [hypotheses] = found(Rare(size=50, end_bonus=2.0), [3], SearchOptions(beam=beam, num=beam, require=(word, "w7")))
    for each in hypotheses:
        assert each.finished
        assert 7 in each.tokens
        assert any(way in textbook.runs(each.tokens, len(way)) for way in ways)


def test_a_word_in_another_is_said_with_it() -> None:
    """4+5 and 5 take one 5, after which nothing is lacking."""

    class Short(SureEngine):
        def log_probs(self, image: int, words: list[int]) -> np.ndarray:
            return super().log_probs(image, [4] * 4 if 5 in words else words)

    [[best]] = found(Short(), [0], SearchOptions(beam=1, require=("w5", "w4+5")))
    assert best.tokens == (4, 4, 4, 4, 5, END)


def test_words_of_several_pieces_are_said() -> None:
    """BPE knows "giraffe" piece by piece."""
    captions = ["a dog sees a giraffe"] + ["a dog runs"] * 9
    tokenizer = Tokenizer.train(captions, TokenizerConfig(kind="bpe", min_count=5))
    engine = ScriptedEngine(size=len(tokenizer), end_bonus=1.0)
    options = SearchOptions(beam=2, num=2, require=("dog", "giraffe"))
    [hypotheses] = search(engine, engine.encode(np.arange(1)), options, tokenizer)
    for each in hypotheses:
        text = tokenizer.decode(each.tokens)
        assert each.finished
        assert "dog" in text
        assert "giraffe" in text


def test_letters_of_a_word_are_said_in_a_row() -> None:
    """Where each letter is a word."""
    tokenizer = Tokenizer.train(["天空中有一个红色的球"], TokenizerConfig(min_count=1))
    engine = ScriptedEngine(size=len(tokenizer), end_bonus=1.0)
    options = SearchOptions(require=("红色", "天空"), banned_words=("一个",), prefix=("有", "一"))
    [[best]] = search(engine, engine.encode(np.arange(1)), options, tokenizer)
    text = tokenizer.decode(best.tokens)
    assert text.startswith("有一")
    assert "红色" in text
    assert "天空" in text
    assert "一个" not in text
