import re

import numpy as np
import pytest

from showtell.errors import DataError, UsageError
from showtell.metrics import Report, score
from showtell.metrics.official.bleu import bleu_scores
from showtell.metrics.significance import compare, most_different

WORDS = ["a", "the", "dog", "cat", "man", "runs", "jumps", "on", "in", "grass", "snow", "red", "small", "two"]
FAST = ["BLEU", "ROUGE_L", "CIDEr"]


def corpus(seed: int, images: int = 60) -> dict[str, list[str]]:
    random = np.random.default_rng(seed)
    return {str(n): [" ".join(random.choice(WORDS, 8)) for _ in range(3)] for n in range(images)}


def system(references: dict[str, list[str]], share: float, seed: int) -> dict[str, str]:
    """Captions that have about `share` of the words of a reference."""
    random = np.random.default_rng(seed)
    return {
        n: " ".join(w if random.random() < share else "thing" for w in captions[0].split())
        for n, captions in references.items()
    }


@pytest.fixture(scope="module")
def references() -> dict[str, list[str]]:
    return corpus(0)


def scored(references: dict[str, list[str]], share: float, seed: int) -> Report:
    return score(system(references, share, seed), references, metrics=FAST)


def test_a_better_system_is_found(references: dict[str, list[str]]) -> None:
    worse, better = scored(references, 0.5, 1), scored(references, 0.9, 2)
    found = compare(worse, better, draws=400)
    assert [d.metric for d in found] == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE_L", "CIDEr"]
    for difference in found:
        assert difference.difference > 0
        assert difference.interval[0] > 0
        assert difference.interval[0] < difference.difference < difference.interval[1]
        assert difference.p_bootstrap == difference.p_randomisation == 1 / 401


def test_a_system_equals_itself(references: dict[str, list[str]]) -> None:
    same = scored(references, 0.7, 1)
    for difference in compare(same, same, draws=50):
        assert difference.interval == (0, 0)
        assert difference.p_bootstrap == difference.p_randomisation == 1


def test_systems_of_equal_quality_seldom_differ() -> None:
    """Under no difference, one p-value in ten is below 0.1; a one-sided test would have two."""
    pairs = 60
    low = {"bootstrap": 0, "randomisation": 0}
    for seed in range(pairs):
        references = corpus(seed, 40)
        found = compare(
            scored(references, 0.7, 2 * seed + 1), scored(references, 0.7, 2 * seed + 2), draws=150, seed=seed
        )[4]
        low["bootstrap"] += found.p_bootstrap < 0.1
        low["randomisation"] += found.p_randomisation < 0.1
    assert 1 <= low["bootstrap"] <= 13
    assert 1 <= low["randomisation"] <= 13


def test_bleu_is_computed_anew_on_each_draw(references: dict[str, list[str]]) -> None:
    """A mean of the images' BLEU has another interval than BLEU of the resampled corpus."""
    first, second = scored(references, 0.5, 1), scored(references, 0.8, 2)
    random = np.random.default_rng(7)
    slow = []
    for _ in range(3000):
        drawn = random.integers(60, size=60)
        slow.append(
            bleu_scores(second.statistics["BLEU"][drawn].sum(0))[3]
            - bleu_scores(first.statistics["BLEU"][drawn].sum(0))[3]
        )
    fast = compare(first, second, draws=3000)[3]
    assert fast.metric == "BLEU-4"
    assert fast.interval == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)


def test_same_seed_same_numbers_and_either_order(references: dict[str, list[str]]) -> None:
    first, second = scored(references, 0.6, 1), scored(references, 0.65, 2)
    there, again = compare(first, second, draws=700, seed=3), compare(first, second, draws=700, seed=3)
    back = compare(second, first, draws=700, seed=3)
    assert there == again
    for one, other in zip(there, back, strict=True):
        assert one.difference == -other.difference
        assert one.interval == pytest.approx([-x for x in other.interval[::-1]])
        assert one.p_bootstrap == other.p_bootstrap
        assert one.p_randomisation == other.p_randomisation


def test_most_different(references: dict[str, list[str]]) -> None:
    first = scored(references, 0.6, 1)
    captions = system(references, 0.6, 1)
    captions["17"] = references["17"][1]
    assert [image for image, _ in most_different(first, score(captions, references, metrics=FAST), count=1)] == ["17"]


def test_reports_about_other_images(references: dict[str, list[str]]) -> None:
    captions = system(references, 0.6, 1)
    first = score(captions, references, metrics=FAST)
    del captions["3"]
    with pytest.raises(DataError, match="only one of them has 3"):
        compare(first, score(captions, references, metrics=FAST))
    turned = dict(reversed(references.items()))
    with pytest.raises(DataError, match="their order differs"):
        compare(first, score(system(references, 0.6, 1), turned, metrics=FAST))


@pytest.mark.parametrize(("option", "value"), [("draws", 0), ("confidence", 1.0)])
def test_options_out_of_range(references: dict[str, list[str]], option: str, value: float) -> None:
    report = scored(references, 0.6, 1)
    with pytest.raises(UsageError, match=re.escape(f"{option} is {value}.")):
        compare(report, report, **{option: value})  # type: ignore[arg-type]
