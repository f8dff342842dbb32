"""What must hold of every metric, whatever the captions: from captions as written to scores."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.metrics import Report, score

pytest.importorskip("Stemmer")

WORDS = ["a", "the", "of", "on", "man", "guy", "men", "dog", "puppy", "hound", "runs", "sprint", "t-shirt", "K."]
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr"]

captions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
# Image id -> (caption, references)
cases = st.dictionaries(
    st.text("0123456789", min_size=1, max_size=4),
    st.tuples(captions, st.lists(captions, min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(autouse=True, scope="module")
def meteor_installed(small_meteor: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOWTELL_CACHE", str(small_meteor))
        yield


def scored(case: Mapping[str, tuple[str, Sequence[str]]]) -> Report:
    report = score(
        {image_id: caption for image_id, (caption, _) in case.items()},
        {image_id: references for image_id, (_, references) in case.items()},
        language="en",
        order_independent=True,
    )
    assert not report.missing
    assert list(report.scores) == NAMES
    return report


@given(st.lists(st.integers(4, 8), min_size=2, max_size=4), st.integers(1, 4))
def test_a_caption_equal_to_all_its_references_has_the_highest_score(lengths: list[int], count: int) -> None:
    case = {}
    for image, length in enumerate(lengths):
        caption = " ".join(f"{'abcd'[image]}{'efghijkl'[place]}" for place in range(length))
        case[str(image)] = (caption, [caption] * count)
    report = scored(case)
    for name in NAMES:
        highest = 10 if name == "CIDEr" else 1
        assert report.scores[name] == pytest.approx(highest, abs=1e-8), name
        assert report.per_image[name] == pytest.approx(highest, abs=1e-8), name


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_images_is_no_matter(case: dict[str, tuple[str, list[str]]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = dict(random.sample(list(case.items()), len(case)))
    one, other = scored(case), scored(shuffled)
    place = [other.image_ids.index(image_id) for image_id in one.image_ids]
    for name in NAMES:
        assert one.scores[name] == pytest.approx(other.scores[name], abs=1e-12), name
        assert one.per_image[name] == pytest.approx(other.per_image[name][place], abs=1e-12), name


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_references_is_no_matter(case: dict[str, tuple[str, list[str]]], random) -> None:  # type: ignore[no-untyped-def]
    """But for METEOR's corpus score: of equally good references the official program counts the first."""
    shuffled = {i: (caption, random.sample(refs, len(refs))) for i, (caption, refs) in case.items()}
    one, other = scored(case), scored(shuffled)
    for name in NAMES:
        assert one.per_image[name] == pytest.approx(other.per_image[name], abs=1e-12), name
        if name != "METEOR":
            assert one.scores[name] == pytest.approx(other.scores[name], abs=1e-12), name


@given(cases, st.sampled_from(["", " ", ".", "\n"]))
def test_an_empty_caption_scores_nothing(case: dict[str, tuple[str, list[str]]], empty: str) -> None:
    image_id = min(case)
    report = scored(case | {image_id: (empty, case[image_id][1])})
    place = report.image_ids.index(image_id)
    for name in NAMES:
        assert report.per_image[name][place] == pytest.approx(0, abs=1e-6), name
        assert np.isfinite(report.scores[name]), name


@given(st.lists(st.tuples(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3)), min_size=1))
def test_any_text_has_scores_in_range(texts: list[tuple[str, list[str]]]) -> None:
    report = scored({str(number): case for number, case in enumerate(texts)})
    for name in NAMES:
        highest = 10 if name == "CIDEr" else 1
        for values in (report.scores[name], report.per_image[name]):
            assert np.all(np.isfinite(values)), name
            assert np.all((np.asarray(values) >= 0) & (np.asarray(values) <= highest + 1e-6)), name
