"""BLEU, ROUGE-L and CIDEr-D on small cases: edges, and slow code written from the formulas."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.metrics import bleu, cider_d, rouge_l
from showtell.metrics.official.rouge import common_subsequence

captions = st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join)
corpora = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=5)
METRICS = [bleu, rouge_l, cider_d]


def grams(caption: str, n: int) -> Counter[tuple[str, ...]]:
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def slow_bleu(candidate: str, references: Sequence[str], order: int) -> float:
    product = 1.0
    for n in range(1, order + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= grams(reference, n)
        ours = grams(candidate, n)
        product *= (sum((ours & most).values()) + 1e-15) / (sum(ours.values()) + 1e-9)
    length = len(candidate.split())
    closest = min((abs(len(r.split()) - length), len(r.split())) for r in references)[1]
    ratio = (length + 1e-15) / (closest + 1e-9)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1)


def slow_cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    frequency = Counter(
        g for of_image in references for g in {g for r in of_image for n in range(1, 5) for g in grams(r, n)}
    )

    def vector(caption: str, n: int) -> dict[tuple[str, ...], float]:
        return {
            g: c * (math.log(len(candidates)) - math.log(max(1, frequency[g]))) for g, c in grams(caption, n).items()
        }

    def norm(v: dict[tuple[str, ...], float]) -> float:
        return math.sqrt(sum(x * x for x in v.values()))

    scores = []
    for candidate, of_image in zip(candidates, references, strict=True):
        total = 0.0
        for reference in of_image:
            delta = grams(candidate, 2).total() - grams(reference, 2).total()
            for n in range(1, 5):
                ours, theirs = vector(candidate, n), vector(reference, n)
                dot = sum(min(x, theirs[g]) * theirs[g] for g, x in ours.items() if g in theirs)
                both = norm(ours) * norm(theirs)
                total += (dot / both if both else dot) * math.exp(-(delta**2) / 72)
        scores.append(10 * total / 4 / len(of_image))
    return scores


def slow_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@given(corpora)
def test_equal_to_slow_code(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = [c for c, _ in corpus], [r for _, r in corpus]
    _, per_image = bleu(candidates, references)
    for n in range(4):
        expected = [slow_bleu(c, r, n + 1) for c, r in corpus]
        np.testing.assert_allclose(per_image[n], expected, rtol=0, atol=1e-12)
    mean, per_image = cider_d(candidates, references)
    np.testing.assert_allclose(per_image, slow_cider_d(candidates, references), rtol=0, atol=1e-12)
    assert mean == pytest.approx(float(np.mean(per_image)), abs=1e-12)


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_common_subsequence(a: list[str], b: list[str]) -> None:
    assert common_subsequence(a, b) == slow_common_subsequence(a, b)


@given(corpora, st.randoms(use_true_random=False))
def test_order_of_images_and_references_is_no_matter(corpus: list[tuple[str, list[str]]], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(corpus)))
    random.shuffle(order)
    candidates, references = [c for c, _ in corpus], [r for _, r in corpus]
    shuffled = [random.sample(references[i], len(references[i])) for i in order]
    for metric in METRICS:
        before, after = metric(candidates, references), metric([candidates[i] for i in order], shuffled)
        np.testing.assert_allclose(after[0], before[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(after[1], before[1][..., order], rtol=0, atol=1e-12)


def test_a_caption_equal_to_its_references() -> None:
    candidates = ["a dog runs on the grass", "two red cars in a street"]
    references = [[c, c] for c in candidates]
    assert bleu(candidates, references)[0] == pytest.approx([1, 1, 1, 1], abs=1e-8)
    assert rouge_l(candidates, references)[0] == pytest.approx(1)
    assert cider_d(candidates, references)[0] == pytest.approx(10)


def test_empty_captions() -> None:
    candidates, references = ["", "a dog runs", ""], [["a dog"], [""], [""]]
    corpus, per_image = bleu(candidates, references)
    assert np.isfinite(corpus).all()
    assert np.isfinite(per_image).all()
    assert per_image[0, 0] == 0
    assert cider_d(candidates, references)[1].tolist() == [0, 0, 0]
    # split(" ") of the official code: two empty captions have one empty word in common
    assert rouge_l(candidates, references)[1].tolist() == pytest.approx([0, 0, 1])


def test_one_image_has_no_cider() -> None:
    assert cider_d(["a dog"], [["a dog"]])[0] == 0


def test_length_tie_goes_to_the_shorter_reference() -> None:
    """torchmetrics takes the other one, which costs up to 2.5e-3 on real captions."""
    _, per_image = bleu(["a b c"], [["a b c d", "a b"]])
    assert per_image[0, 0] == pytest.approx(1)


def test_no_break_space_splits_for_bleu_and_cider_only() -> None:
    token = "22\u00a03/4"
    assert bleu([token], [["22"]])[1][0, 0] == pytest.approx(0.5)
    assert rouge_l([token], [["22"]])[0] == 0


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_arguments(metric: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"no references"):
        metric(["a"], [[]])
    with pytest.raises(ValueError, match=r"1 candidates, but 2|argument 2 is longer"):
        metric(["a"], [["a"], ["b"]])
