import subprocess
import sys
from dataclasses import replace

import pytest

from showtell.errors import DataError, MissingExtraError, UsageError
from showtell.metrics import METRICS, score, signature
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


def test_an_image_whose_list_of_references_is_empty_is_left_out_and_named() -> None:
    report = score({"1": "a dog", "2": "a cat"}, {"1": ["a dog"], "2": [], "3": []})
    assert report.image_ids == ("1",)
    assert (report.without_references, report.without_prediction) == (("2",), ())


CHINESE = {"1": ("一个红色的球", ["天空中有一个红色的球。", "红球"]), "2": ("一只猫", ["一只白色的猫", "猫"])}


def test_chinese_is_scored_by_letters() -> None:
    """A sentence as one word would be right or wrong as a whole."""
    pytest.importorskip("sacrebleu")
    said, people = ({i: case[side] for i, case in CHINESE.items()} for side in (0, 1))
    report = score(said, people, metrics=["BLEU", "CIDEr"])  # type: ignore[arg-type]
    assert report.language == "zh"
    assert report.candidates[0] == "一 个 红 色 的 球"
    assert report.references[0][0] == "天 空 中 有 一 个 红 色 的 球"
    assert report.scores["BLEU-4"] > 0.1
    assert "|lang:zh|tok:zh|" in signature(report)


def test_a_foreign_word_leaves_the_official_tokens() -> None:
    people = {"1": ["a sign that reads 出口", "a red sign", "a sign"]}
    report = score({"1": "a sign"}, people, metrics=["BLEU"])
    assert "|tok:ptb|" in signature(report)
    assert report.references[0][0] == "a sign that reads 出口"


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
