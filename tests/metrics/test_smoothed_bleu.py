"""BLEU-4 of single captions, for rewards."""

import numpy as np
import pytest

from showtell.metrics.official.bleu import bleu_statistics, smoothed_bleu_4


def test_counts_one_more_of_longer_ngrams() -> None:
    """3 of 4 words, 2 + 1 of 3 + 1 pairs, 1 + 1 of 2 + 1 triples, 0 + 1 of 1 + 1 of four; one word too short."""
    found = smoothed_bleu_4(bleu_statistics(["a b c x"], [["a b c d e"]]))
    assert found[0] == pytest.approx((3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * np.exp(1 - 5 / 4))


def test_between_nothing_and_all() -> None:
    found = smoothed_bleu_4(bleu_statistics(["a b c d", "x y", "", "a b"], [["a b c d", "d"]] * 4))
    assert found[0] == pytest.approx(1)
    assert found[1] == found[2] == 0
    assert 0 < found[3] < 1
