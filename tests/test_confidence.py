"""Confidence: fitted to what was right, true on photos that it has not seen, the same from the model's config."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.captioner import Caption
from showtell.confidence import FEWEST, GUESS, SURE, Confidence, features_of, in_words, rarity_of
from showtell.metrics.calibration import calibration, rank_correlation


def photos(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of captions, and CIDErs that follow the first of them, with noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 3)) * [0.5, 1, 2] + [-1, -2, -3]
    return features, np.maximum(0, 0.6 + features[:, 0] + 0.3 + random.normal(size=count) * 0.3)


def test_on_new_photos_it_is_the_share_that_is_right() -> None:
    found = Confidence.fit([photos(400, 0)], ())
    assert found is not None
    features, ciders = photos(4000, 1)
    figures = calibration(found.of(features), ciders, 0.5)
    assert figures.error < 0.05
    assert figures.correlation > 0.75
    assert figures.surer_half > 1.3


def test_of_several_data_sets_the_chance_is_true_of_the_first() -> None:
    """Captions of the second one are worse than they look."""
    harder = (photos(4000, 2)[0], photos(4000, 2)[1] * 0.3)
    found = Confidence.fit([photos(400, 0), harder], ())
    assert found is not None
    features, ciders = photos(4000, 1)
    assert calibration(found.of(features), ciders, 0.5).error < 0.06
    assert calibration(found.of(harder[0]), harder[1], 0.5).error > 0.1


def test_it_is_kept_in_json() -> None:
    found = Confidence.fit([photos(100, 0)], ())
    assert found is not None
    assert Confidence.model_validate(json.loads(found.model_dump_json())) == found


def test_too_few_photos_or_all_right_tell_nothing() -> None:
    features, ciders = photos(FEWEST, 0)
    assert Confidence.fit([(features, ciders)], ()) is not None
    assert Confidence.fit([(features[1:], ciders[1:])], ()) is None
    assert Confidence.fit([(features, ciders + 1)], ()) is None
    assert Confidence.fit([(features, ciders * 0)], ()) is None


@given(
    st.lists(st.tuples(st.floats(-30, 0), st.floats(0, 12)), max_size=30),
    st.floats(-300, 0),
)
def test_features_are_numbers_whatever_the_caption(words: list[tuple[float, float]], log_prob: float) -> None:
    features = features_of([each for each, _ in words], log_prob, [word for _, word in words])
    assert features.shape == (3,)
    assert np.isfinite(features).all()


def test_rarity_counts_images_and_not_captions() -> None:
    assert rarity_of([[[1, 4, 2], [1, 4, 2]], [[1, 5, 2]]], 7) == (0.7, 0.0, 0.0, 0.7, 0.7, 0.7, 0.7)


def test_in_words() -> None:
    assert [in_words(each) for each in (1, SURE, SURE - 0.01, GUESS, GUESS - 0.01, 0)] == [
        "sure", "sure", "unsure", "unsure", "a guess", "a guess",
    ]  # fmt: skip


def test_a_caption_under_the_wanted_confidence_has_no_words() -> None:
    caption = Caption("a dog", ("a", "dog"), -3.0, (-1.0, -1.5), -1.0, None, True, confidence=0.25)
    assert caption.if_at_least(0.25) is caption
    left_out = caption.if_at_least(0.5)
    assert (left_out.text, left_out.words, left_out.confidence) == ("", (), 0.25)
    assert left_out.left_out == "confidence 0.25 is under 0.5"
    unknown = Caption("a dog", ("a", "dog"), -3.0, (-1.0, -1.5), -1.0, None, True)
    assert unknown.if_at_least(1) is unknown


def test_a_perfect_and_a_useless_confidence() -> None:
    right = np.array([0.0, 1, 0, 1])
    perfect = calibration(right, right, 0.5)
    assert (perfect.error, perfect.correlation, perfect.surer_half) == (0, pytest.approx(1), 2)
    useless = calibration(np.full(4, 0.5), right, 0.5)
    assert (useless.error, useless.correlation) == (0, 0)
    assert calibration(np.ones(4), right, 0.5).error == 0.5


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    """Ties share their mean rank; against its definition, one rank at a time."""
    first, second = (np.array(side, float) for side in zip(*pairs, strict=True))

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < each).sum() + ((values == each).sum() - 1) / 2 for each in values])

    a, b = ranks(first) - ranks(first).mean(), ranks(second) - ranks(second).mean()
    expected = 0.0 if not a.any() or not b.any() else (a @ b) / np.sqrt((a @ a) * (b @ b))
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-9)
