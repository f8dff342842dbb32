"""Every metric against what the official COCO code gave, image by image."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from showtell.metrics import bleu, cider_d, meteor, rouge_l, score

DATA = os.environ.get("SHOWTELL_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="SHOWTELL_TEST_DATA does not name a folder with eval/")


@pytest.fixture(scope="module", params=["coco_demo", "coco", "flickr8k_dev"])
def case(request: pytest.FixtureRequest) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    folder = Path(DATA or "") / "eval" / request.param
    tokens = json.loads((folder / "ptb_tokens.json").read_text())
    official = json.loads((folder / "scores.json").read_text())
    order = [str(i) for i in official["image_order"]]
    return [tokens["predictions"][i][0] for i in order], [tokens["references"][i] for i in order], official


def check(official: dict[str, Any], name: str, corpus: float, per_image: np.ndarray) -> None:
    assert corpus == pytest.approx(official["scores"][name], abs=1e-12, rel=0)
    np.testing.assert_allclose(per_image, official["per_image"][name], rtol=0, atol=1e-12)


def test_bleu(case: tuple[list[str], list[list[str]], dict[str, Any]]) -> None:
    candidates, references, official = case
    corpus, per_image = bleu(candidates, references)
    for n in range(4):
        check(official, f"BLEU-{n + 1}", corpus[n], per_image[n])


def test_rouge_l(case: tuple[list[str], list[list[str]], dict[str, Any]]) -> None:
    candidates, references, official = case
    check(official, "ROUGE_L", *rouge_l(candidates, references))


def test_cider_d(case: tuple[list[str], list[list[str]], dict[str, Any]]) -> None:
    candidates, references, official = case
    check(official, "CIDEr", *cider_d(candidates, references))


def test_meteor(case: tuple[list[str], list[list[str]], dict[str, Any]]) -> None:
    """The first of them builds the index of paraphrases: half a minute."""
    pytest.importorskip("pycocoevalcap")
    pytest.importorskip("Stemmer")
    candidates, references, official = case
    check(official, "METEOR", *meteor(candidates, references))


def test_sacrebleu_agrees(case: tuple[list[str], list[list[str]], dict[str, Any]]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    candidates, references, _ = case
    most = max(map(len, references))
    streams = [[r[n] if n < len(r) else None for r in references] for n in range(most)]
    corpus, _ = bleu(candidates, references)
    for n in range(4):
        metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=n + 1, force=True)
        assert metric.corpus_score(candidates, streams).score / 100 == pytest.approx(corpus[n], abs=1e-10)


@pytest.mark.parametrize("name", ["coco_demo", "coco", "flickr8k_dev"])
def test_report_from_captions_as_written(name: str) -> None:
    folder = Path(DATA or "") / "eval" / name
    official = json.loads((folder / "scores.json").read_text())
    predicted = {str(r["image_id"]): r["caption"] for r in json.loads((folder / "predictions.json").read_text())}
    references: dict[str, list[str]] = {str(i): [] for i in official["image_order"]}
    for row in json.loads((folder / "references.json").read_text())["annotations"]:
        references[str(row["image_id"])].append(row["caption"])
    report = score(predicted, references, metrics=["BLEU", "ROUGE_L", "CIDEr"])
    for metric in report.scores:
        check(official, metric, report.scores[metric], report.per_image[metric])
