import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.metrics import diversity
from showtell.metrics.diversity import DANGLING, dangles, repeats

captions = st.lists(st.lists(st.sampled_from(["a", "b", "c", "with"]), max_size=7).map(" ".join), min_size=1)


def test_figures() -> None:
    found = diversity(
        ["a man with a", "a man with a", "a dog dog runs", "in a red car in a red house", ""],
        training=["a dog dog runs", "a horse"],
    )
    assert found.captions == 5
    assert found.vocabulary == 9  # a man with dog runs in red car house
    assert found.mean_length == pytest.approx((4 + 4 + 4 + 8 + 0) / 5)
    assert found.unique == 4 / 5
    assert found.dangling == 2 / 5
    assert found.repeated_words == 1 / 5
    assert found.repeated_ngrams == 1 / 5
    assert found.copied == 1 / 5


def test_copies_are_not_counted_without_training_captions() -> None:
    assert diversity(["a dog"]).copied is None
    assert diversity(["a dog"], []).copied == 0


@pytest.mark.parametrize("caption", ["a man with a", "a dog on the", "a man and", "people standing in"])
def test_captions_that_break_off(caption: str) -> None:
    assert dangles(caption.split())


@pytest.mark.parametrize("caption", ["a boy climbs up", "they look on", "a dog behind her", "a man walks by", ""])
def test_captions_that_people_end_like_that(caption: str) -> None:
    assert not dangles(caption.split())


def test_a_run_may_overlap_itself() -> None:
    assert repeats(["a", "a", "a", "a"], 3)
    assert not repeats(["a", "a", "a"], 3)
    assert not repeats(["a", "dog", "and", "a", "cat"], 1)


@given(captions)
def test_against_slow_counts(texts: list[str]) -> None:
    found = diversity(texts, training=texts[:1])
    words = [text.split() for text in texts]
    assert found.dangling * len(texts) == pytest.approx(sum(bool(w) and w[-1] in DANGLING for w in words))
    runs = [[" ".join(w[i : i + 3]) for i in range(len(w) - 2)] for w in words]
    assert found.repeated_ngrams * len(texts) == pytest.approx(sum(len(set(r)) < len(r) for r in runs))
    assert found.copied == texts.count(texts[0]) / len(texts)
    assert found.unique == len(set(texts)) / len(texts)
