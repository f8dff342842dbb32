"""Sampling: the right distribution, the same captions in any batch, greedy at its edges."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.search import Hypothesis, SearchOptions, search
from tests.search import textbook
from tests.search.scripted import END, ScriptedEngine, ScriptedVocabulary

WORDS = (4, 5, 6, 7)


class KnownEngine(ScriptedEngine):
    """The first word is w4 to w7 with these probabilities, the second is `<end>`."""

    def __init__(self, probabilities: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)) -> None:
        super().__init__(size=8)
        self.probabilities = probabilities

    def log_probs(self, image: int, words: list[int]) -> np.ndarray:
        probabilities = np.full(self.size, 1e-12)
        if words:
            probabilities[END] = 1
        else:
            probabilities[list(WORDS)] = self.probabilities
        return np.log(probabilities / probabilities.sum()).astype(np.float32).astype(np.float64)


def found(engine: ScriptedEngine, images: list[int], options: SearchOptions, **more: object) -> list[list[Hypothesis]]:
    return search(engine, engine.encode(np.array(images)), options, ScriptedVocabulary(engine.size), **more)


def shares_of_first_words(options: SearchOptions) -> list[float]:
    """How often w4, w5, w6, w7 come first in `options.num` samples."""
    [hypotheses] = found(KnownEngine(), [0], options)
    counts = Counter(each.tokens[0] for each in hypotheses)
    assert set(counts) <= set(WORDS)
    return [counts[word] / options.num for word in WORDS]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.5, 0.3, 0.15, 0.05)),
        ({"temperature": 0.5}, (0.25, 0.09, 0.0225, 0.0025)),
        ({"temperature": 2.0}, (0.7071, 0.5477, 0.3873, 0.2236)),
        ({"top_k": 2}, (0.5, 0.3, 0, 0)),
        ({"top_k": 100}, (0.5, 0.3, 0.15, 0.05)),
        ({"top_p": 0.49}, (1, 0, 0, 0)),
        ({"top_p": 0.51}, (0.5, 0.3, 0, 0)),  # the word that passes the threshold is kept
        ({"top_p": 0.79}, (0.5, 0.3, 0, 0)),
        ({"top_p": 0.81}, (0.5, 0.3, 0.15, 0)),
        ({"top_p": 1.0}, (0.5, 0.3, 0.15, 0.05)),
        ({"top_p": 1e-9}, (1, 0, 0, 0)),
        ({"top_k": 2, "top_p": 0.6}, (1, 0, 0, 0)),  # of the two left, w4 has 0.625
        ({"temperature": 0.5, "top_p": 0.68}, (1, 0, 0, 0)),  # after the temperature w4 has 0.685
        ({"temperature": 0.5, "top_p": 0.7}, (0.25, 0.09, 0, 0)),
        ({"banned_words": ("w4",)}, (0, 0.3, 0.15, 0.05)),
        ({"banned_words": ("w4",), "top_k": 2}, (0, 0.3, 0.15, 0)),
        ({"banned_words": ("w4",), "top_p": 0.5}, (0, 1, 0, 0)),  # of the words left, w5 has 0.6
    ],
)
def test_words_come_as_often_as_they_should(options: dict, expected: tuple[float, ...]) -> None:
    """Guards the distribution and each edge: bans first, then temperature, top-k, top-p."""
    shares = shares_of_first_words(SearchOptions(sample=True, num=8000, max_words=2, **options))
    for share, weight in zip(shares, expected, strict=True):
        probability = weight / sum(expected)
        assert share == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 8000) + 1e-9)


def test_later_words_depend_on_earlier_ones_as_in_the_model() -> None:
    """Guards the rows of the state: samples that part after the first word must each go on with their own."""
    engine = ScriptedEngine(size=7, sharpness=1.0, end_bonus=1.0)
    options = SearchOptions(sample=True, num=8000, max_words=2, min_words=2, length_penalty=0.0)
    [hypotheses] = found(engine, [4], options)
    counts = Counter(each.tokens[:2] for each in hypotheses)
    for first in (4, 5, 6):
        for second in (4, 5, 6):
            probability = 1.0
            for words, word in (([], first), ([first], second)):
                weights = np.exp(engine.log_probs(4, words)[[4, 5, 6]])
                probability *= weights[word - 4] / weights.sum()
            assert counts[first, second] / 8000 == pytest.approx(probability, abs=4 * math.sqrt(probability / 8000))


@pytest.mark.parametrize("limit", [{"top_k": 1}, {"temperature": 1e-6}, {"top_p": 1e-6}])
@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram": 2, "min_words": 3, "banned_words": ("w5",)}])
def test_sampling_becomes_greedy(limit: dict, rules: dict) -> None:
    engine = ScriptedEngine(size=9)
    images = list(range(12))
    sampled = found(engine, images, SearchOptions(sample=True, max_words=8, **limit, **rules))
    assert sampled == found(engine, images, SearchOptions(beam=1, max_words=8, **rules))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True),
    st.sampled_from([{}, {"top_k": 2}, {"top_p": 0.8}, {"temperature": 2.0, "no_repeat_ngram": 2}]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_captions_do_not_depend_on_batch_or_order(images, options, num, random) -> None:
    engine = ScriptedEngine(size=8)
    options = SearchOptions(sample=True, seed=3, num=num, max_words=6, **options)
    alone = {image: found(engine, [image], options, image_numbers=[image])[0] for image in images}
    random.shuffle(images)
    assert found(engine, images, options, image_numbers=images) == [alone[image] for image in images]


def test_the_first_samples_stay_when_more_are_drawn() -> None:
    engine = ScriptedEngine(size=10, sharpness=1.0)
    few, many = (found(engine, [0], SearchOptions(sample=True, num=num))[0] for num in (2, 9))
    assert {each.tokens for each in few} <= {each.tokens for each in many}


def test_seeds_and_images_differ() -> None:
    """One generator for all would give every image the same luck."""
    engine = ScriptedEngine(size=10, sharpness=0.5)
    options = [SearchOptions(sample=True, seed=seed) for seed in (0, 1)]
    assert found(engine, [0], options[0]) != found(engine, [0], options[1])
    same = search(engine, {"image": np.array([7, 7])}, options[0], ScriptedVocabulary(10))
    assert same[0] != same[1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(0, 3),
    st.integers(1, 4),
    st.sampled_from([None, 1, 3]),
    st.lists(st.sampled_from(["w4", "w4+5", "w6+5", "w4+6+5|7+7"]), max_size=3),
)
def test_samples_keep_the_rules(image, no_repeat_ngram, min_words, top_k, banned) -> None:
    """Also guards that enough is proposed: a sample is cut short only where the rules leave no word."""
    engine = ScriptedEngine(size=8)
    options = SearchOptions(
        sample=True,
        num=4,
        max_words=7,
        min_words=min_words,
        no_repeat_ngram=no_repeat_ngram,
        top_k=top_k,
        banned_words=tuple(banned),
    )
    for each in found(engine, [image], options)[0]:
        for t, word in enumerate(each.tokens):
            assert word in textbook.allowed_words(engine, options, each.tokens[:t])
        if not each.finished:
            dead_end = not textbook.allowed_words(engine, options, each.tokens)
            assert len(each.tokens) == options.max_words or dead_end


def test_top_k_asks_for_no_more_than_it_needs() -> None:
    engine = ScriptedEngine(size=50, end_bonus=-1.0)
    found(engine, [0], SearchOptions(sample=True, top_k=5, num=3))
    assert engine.asked[:3] == [(1, 1, 5 + 4), (1, 3, 5 + 3), (1, 3, 5 + 3)]


def test_samples_that_never_end_are_cut_off() -> None:
    [hypotheses] = found(ScriptedEngine(end_bonus=-50.0), [0], SearchOptions(sample=True, num=3, max_words=5))
    assert [(len(each.tokens), each.finished) for each in hypotheses] == [(5, False)] * 3


def test_rules_that_leave_no_word_return_what_was_said() -> None:
    options = SearchOptions(sample=True, num=2, min_words=3, no_repeat_ngram=1)
    [hypotheses] = found(ScriptedEngine(size=6), [0], options)
    assert [(len(each.tokens), each.finished) for each in hypotheses] == [(2, False)] * 2
