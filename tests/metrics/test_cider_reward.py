import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.metrics import cider_d
from showtell.metrics.cider_reward import CiderReward

END = 2
words = st.lists(st.integers(3, 7), max_size=6)
images = st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), words), min_size=1, max_size=5)


def padded(rows: list[list[list[int]]], width: int = 0) -> np.ndarray:
    """Samples `[B, K, T]` with zeros after the last id."""
    width = max([width, *(len(ids) for samples in rows for ids in samples)])
    return np.array([[ids + [0] * (width - len(ids)) for ids in samples] for samples in rows])


def text(ids: list[int]) -> str:
    return " ".join(map(str, ids))


@given(images)
def test_equals_cider_d_with_end_as_a_word(corpus: list[tuple[list[list[int]], list[int]]]) -> None:
    references = [[[1, *r, END] for r in of_image] for of_image, _ in corpus]
    samples = [[[*ids, END]] for _, ids in corpus]
    _, expected = cider_d(
        [text([*ids, END]) for _, ids in corpus],
        [[text([*r, END]) for r in of_image] for of_image, _ in corpus],
    )
    reward = CiderReward(references)(np.arange(len(corpus)), padded(samples))
    np.testing.assert_allclose(reward[:, 0], expected, rtol=0, atol=1e-12)


@given(images, st.integers(0, 2**32))
def test_samples_and_order_of_the_batch_do_not_matter(
    corpus: list[tuple[list[list[int]], list[int]]], seed: int
) -> None:
    """The reward of a sample must not depend on the others of its batch."""
    reward = CiderReward([[[*r, END] for r in of_image] for of_image, _ in corpus])
    samples = padded([[[*ids, END], [*ids, 3, END], ids] for _, ids in corpus], 8)
    alone = np.array([[reward([n], samples[n, k][None, None])[0, 0] for k in range(3)] for n in range(len(corpus))])
    order = np.random.default_rng(seed).integers(len(corpus), size=7)
    np.testing.assert_allclose(reward(order, samples[order]), alone[order], rtol=0, atol=1e-12)


def test_what_follows_the_end_does_not_count() -> None:
    reward = CiderReward([[[3, 4, 5, END]], [[6, 7, END]], [[8, END]]])
    clean = reward([0], [[[3, 4, END, 0, 0, 0]]])
    assert reward([0], [[[3, 4, END, END, 7, 9]]]) == clean
    assert reward([0], [[[1, 3, 4, END, 0, 0]]]) == clean


def test_a_caption_that_breaks_off_scores_less() -> None:
    """Without <end> in the references, "a man in a" earns as much as a whole caption."""
    reward = CiderReward([[[3, 4, 5, 6, END]], [[7, 8, END]], [[9, 7, END]]])
    broken, whole = reward([0], [[[3, 4, 5, 6, 0], [3, 4, 5, 6, END]]])[0]
    assert broken < whole == pytest.approx(10)


def test_words_that_no_reference_has_make_the_norm_longer() -> None:
    reward = CiderReward([[[3, 4, END]], [[5, 6, END]]])
    known, unknown = reward([0], [[[3, 4, END, 0], [3, 4, 99, END]]])[0]
    assert 0 < unknown < known


def test_empty_batches_and_samples() -> None:
    reward = CiderReward([[[3, END]], [[4, END]]])
    assert reward([], np.zeros((0, 2, 5), dtype=int)).shape == (0, 2)
    assert reward([1], np.zeros((1, 2, 5), dtype=int)).tolist() == [[0, 0]]
    assert reward([1], [[[99, 98]]]).tolist() == [[0]]
    assert CiderReward([[[]]])([0], [[[3, END]]]).tolist() == [[0]]


def test_wrong_references_and_ids() -> None:
    with pytest.raises(ValueError, match="an image has no references"):
        CiderReward([[[3]], []])
    with pytest.raises(ValueError, match=r"ids must lie in 0\.\.65,534"):
        CiderReward([[[65_535]]])
    with pytest.raises(ValueError, match=r"ids must lie in 0\.\.65,534"):
        CiderReward([[[65_534]]])([0], [[[-1]]])
    assert CiderReward([[[65_534, END]], [[3]]])([0], [[[65_534, END]]])[0, 0] > 0
