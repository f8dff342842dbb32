"""Every message of SearchOptions and of `search` itself."""

from concurrent.futures import ProcessPoolExecutor
from copy import copy

import numpy as np
import pytest

from showtell.errors import UsageError
from showtell.search import SearchOptions, search
from tests.search.scripted import ScriptedEngine, ScriptedVocabulary


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beam": 0}, "beam is 0, not a whole number from 1 to 10000."),
        ({"beam": 2.5}, "beam is 2.5, not a whole number from 1 to 10000."),
        ({"beam": True}, "beam is True, not a whole number from 1 to 10000."),
        ({"beam": "3"}, "beam is '3', not a whole number from 1 to 10000."),
        ({"beam": 2**63}, "beam is 9223372036854775808, not a whole number from 1 to 10000."),
        ({"groups": 0}, "groups is 0, not a whole number from 1 to 10000."),
        ({"beam": 5, "groups": 2}, "A beam of 5 can't be split into 2 equal groups. Use beam=6."),
        ({"groups": 3, "sample": True}, "groups is 3, but sampling has no groups. Leave out groups or sample."),
        ({"groups": 3, "diversity": -1.0}, "diversity is -1.0, not 0 or more. Useful values are 0.2 to 0.8."),
        ({"diversity": 1.0}, "diversity is set, but only groups use it. Set groups too, or leave it out."),
        ({"num": 0}, "num is 0, not a whole number from 1 to 10000."),
        ({"num": 5}, "num is 5, but a beam of 3 finds at most 3 captions. Use beam=5 or more, or sample."),
        ({"seed": -1}, "seed is -1, not a whole number from 0 up."),
        ({"min_words": -1}, "min_words is -1, not a whole number from 0 up."),
        ({"max_words": 0}, "max_words is 0, not a whole number from 1 up."),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram is -2, not a whole number from 0 up."),
        (
            {"min_words": 9, "max_words": 5},
            "min_words is 9, over max_words (5). Lower one or raise the other.",
        ),
        ({"length_penalty": -0.1}, "length_penalty is -0.1, not 0 or more and at most 10. Useful values are 0 to 1."),
        (
            {"length_penalty": float("nan")},
            "length_penalty is nan, not 0 or more and at most 10. Useful values are 0 to 1.",
        ),
        ({"banned_words": "dog"}, "banned_words is 'dog', not a tuple of words. Write ('word',)."),
        ({"prefix": "a man"}, "prefix is 'a man', not a tuple of words. Write ('word',)."),
        (
            {"prefix": ("a", "man"), "max_words": 1},
            "prefix has 2 words, over max_words (1). Shorten one or raise the other.",
        ),
        (
            {"prefix": ("a", "man"), "banned_words": ("man",)},
            "prefix has the word 'man', which banned_words forbids. Keep one of them.",
        ),
        ({"require": "dog"}, "require is 'dog', not a tuple of words. Write ('word',)."),
        (
            {"require": ("a", "dog", "a", "man"), "max_words": 2},
            "require has 3 words, over max_words (2). Shorten one or raise the other.",
        ),
        (
            {"prefix": ("a", "man", "a"), "require": ("a", "dog"), "max_words": 3},
            "prefix and require have 4 words, over max_words (3). Shorten one or raise the other.",
        ),
        (
            {"require": ("dog",), "banned_words": ("cat", "dog")},
            "require has the word 'dog', which banned_words forbids. Keep one of them.",
        ),
        (
            {"require": ("dog",), "sample": True},
            "require and sample are both set, but only a beam without groups can require words. "
            "Leave out require or sample.",
        ),
        (
            {"require": ("dog",), "groups": 3},
            "require and groups are both set, but only a beam without groups can require words. "
            "Leave out require or groups.",
        ),
        ({"sample": True, "top_k": 0}, "top_k is 0, not a whole number from 1 up."),
        ({"sample": True, "top_p": 0.0}, "top_p is 0.0, not over 0 and at most 1. Try top_p=0.9."),
        ({"sample": True, "top_p": 1.5}, "top_p is 1.5, not over 0 and at most 1. Try top_p=0.9."),
        (
            {"sample": True, "temperature": 0},
            "temperature is 0, not over 0. For the most likely words use beam=1.",
        ),
        (
            {"temperature": 0.5},
            "temperature is set, but only sampling uses it. Set sample too, or leave it out.",
        ),
        ({"top_k": 5}, "top_k is set, but only sampling uses it. Set sample too, or leave it out."),
        ({"top_p": 0.9}, "top_p is set, but only sampling uses it. Set sample too, or leave it out."),
    ],
)
def test_wrong_options_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        SearchOptions(**wrong)
    assert str(error.value) == message


def test_samples_may_be_more_than_the_beam() -> None:
    assert SearchOptions(sample=True, num=10, beam=3).num == 10


def test_the_prefix_may_say_required_words() -> None:
    """They need no further place among max_words."""
    assert SearchOptions(prefix=("a", "man"), require=("man",), max_words=2).require == ("man",)


def test_options_travel_to_other_processes() -> None:
    options = SearchOptions(beam=5, banned_words=("dog",))
    with ProcessPoolExecutor(1) as other:
        assert other.submit(copy, options).result() == options


def test_image_numbers_must_fit_the_images() -> None:
    engine = ScriptedEngine()
    memory = engine.encode(np.arange(3))
    with pytest.raises(UsageError, match=r"image_numbers has 2 numbers for 3 images. Give one for each image."):
        search(engine, memory, SearchOptions(), ScriptedVocabulary(), image_numbers=[4, 5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": ("w4", "w99")}, "prefix has the word 'w99', which this model never says. Choose another word."),
        (
            {"prefix": ("w4", "w5"), "banned_words": ("w4+5",)},
            "prefix has 'w4 w5', which banned_words makes impossible to say. Keep one of them.",
        ),
        (
            {"prefix": ("w4+5", "w6"), "max_words": 2},
            "prefix has 'w4+5 w6', which takes 3 tokens, over max_words (2). Raise max_words or leave it out.",
        ),
    ],
)
def test_a_prefix_must_be_one_that_captions_can_begin_with(options: dict, message: str) -> None:
    engine = ScriptedEngine()
    with pytest.raises(UsageError) as error:
        search(engine, engine.encode(np.arange(1)), SearchOptions(**options), ScriptedVocabulary())
    assert str(error.value) == message
