import subprocess
import sys
from dataclasses import replace

import pytest

from showtell.errors import DataError, MissingExtraError, UsageError
from showtell.metrics import METRICS, score
from showtell.metrics.official.meteor import METEOR


def test_scores_and_lists_what_does_not_match() -> None:
    """An id that stands on one side only must be seen, not dropped in silence."""
    report = score(
        {"x": "A dog!", "2": "Two cars.", "1": "a dog runs"},
        {"1": ["A dog runs.", "a dog is running"], "2": ["two red cars"], "3": ["a house"]},
        metrics=["BLEU", "ROUGE_L", "CIDEr"],
    )
    assert report.image_ids == ("1", "2")
    assert report.without_prediction == ("3",)
    assert report.without_references == ("x",)
    assert report.per_image["BLEU-1"][0] == pytest.approx(1, abs=1e-8)
    assert set(report.scores) == set(report.per_image) >= {"BLEU-1", "BLEU-4", "ROUGE_L", "CIDEr"}
    assert all(values.shape == (2,) for values in report.per_image.values())


def test_empty_list_of_references_names_the_image() -> None:
    with pytest.raises(DataError, match="image seven is empty"):
        score({"seven": "a dog"}, {"seven": []})


def test_no_image_in_common() -> None:
    with pytest.raises(DataError, match="None of the 1 predicted"):
        score({"1.jpg": "a dog"}, {"1": ["a dog"]})


def test_unknown_metric() -> None:
    with pytest.raises(UsageError, match=r"no metric BLUE\. Choose from: BLEU, METEOR"):
        score({"1": "a dog"}, {"1": ["a dog"]}, metrics=["BLUE"])


def test_a_metric_that_can_not_be_computed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a column less than asked for looks complete."""

    def fails(progress: object) -> None:
        raise MissingExtraError("METEOR", "meteor")

    monkeypatch.setitem(METRICS, "METEOR", replace(METEOR, prepare=fails))
    report = score({"1": "a dog"}, {"1": ["a dog"]})
    assert "METEOR" not in report.scores
    assert report.scores["BLEU-1"] == pytest.approx(1, abs=1e-8)
    assert report.missing["METEOR"].endswith("Run: pip install 'showtell[meteor]'")


def test_import_does_not_need_torch() -> None:
    code = "import sys, showtell.metrics; assert not {'torch', 'Stemmer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
