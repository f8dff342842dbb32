"""From captions as people write them to scores: tokenise, score, and say what could not be scored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from showtell.errors import DataError, ShowtellError, UsageError
from showtell.metrics.bleu import bleu_scores, bleu_statistics
from showtell.metrics.cider import cider_d
from showtell.metrics.meteor import meteor_scores, meteor_statistics
from showtell.metrics.ptb import tokenise
from showtell.metrics.rouge import rouge_l

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")


@dataclass(frozen=True)
class Report:
    """Scores of one set of predictions."""

    scores: dict[str, float]
    """Corpus scores: BLEU-1 .. BLEU-4, METEOR, ROUGE_L, CIDEr (which is CIDEr-D)."""
    per_image: dict[str, NDArray[np.float64]]
    """The same for each image, `[B]` in the order of `image_ids`."""
    statistics: dict[str, NDArray[np.float64]]
    """What BLEU and METEOR add up over images before they divide, `[B, ...]`; the others are means."""
    image_ids: tuple[str, ...]
    """The images that were scored, in the order of the references."""
    without_prediction: tuple[str, ...]
    """Images that have references but no prediction; they are not in the scores."""
    without_references: tuple[str, ...]
    """Images that have a prediction but no references; they are not in the scores."""
    missing: dict[str, str]
    """Metrics that were asked for but could not be computed, and why."""


def score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Collection[str] = METRICS,
    order_independent: bool = False,
) -> Report:
    """Score one caption an image against the image's references.

    Args:
        predictions: image id -> caption.
        references: image id -> its captions by people, one at least. Images are scored in this order.
        metrics: the names of `METRICS`, or some of them. Without METEOR it takes a tenth of the time.
        order_independent: give a caption the same tokens wherever it stands (see `ptb.tokenise`), as the
            official code does not.

    Raises:
        UsageError: there is no metric of that name.
        DataError: no image has both a prediction and references, or an image's list of references is empty.
    """
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise UsageError(f"There is no metric {unknown[0]}.", f"Choose from: {', '.join(METRICS)}.")
    image_ids = tuple(i for i in references if i in predictions)
    if not image_ids:
        raise DataError(
            f"None of the {len(predictions)} predicted images is among the {len(references)} references.",
            "Check that both files name images in the same way.",
        )
    for image_id in image_ids:
        if not references[image_id]:
            raise DataError(f"The list of references of image {image_id} is empty.")
    candidates = tokenise([predictions[i] for i in image_ids], order_independent=order_independent)
    flat = tokenise([c for i in image_ids for c in references[i]], order_independent=order_independent)
    rest = iter(flat)
    gold = [list(islice(rest, len(references[i]))) for i in image_ids]

    scores: dict[str, float] = {}
    per_image: dict[str, NDArray[np.float64]] = {}
    statistics: dict[str, NDArray[np.float64]] = {}
    missing: dict[str, str] = {}
    if "BLEU" in metrics:
        statistics["BLEU"] = bleu_statistics(candidates, gold).astype(np.float64)
        names = [f"BLEU-{n}" for n in range(1, 5)]
        scores |= zip(names, bleu_scores(statistics["BLEU"].sum(0)).tolist(), strict=True)
        per_image |= zip(names, bleu_scores(statistics["BLEU"]).T, strict=True)
    if "METEOR" in metrics:
        try:
            statistics["METEOR"] = meteor_statistics(candidates, gold)
            scores["METEOR"] = float(meteor_scores(statistics["METEOR"].sum(0)))
            per_image["METEOR"] = meteor_scores(statistics["METEOR"])
        except ShowtellError as error:
            missing["METEOR"] = str(error)
    if "ROUGE_L" in metrics:
        scores["ROUGE_L"], per_image["ROUGE_L"] = rouge_l(candidates, gold)
    if "CIDEr" in metrics:
        scores["CIDEr"], per_image["CIDEr"] = cider_d(candidates, gold)
    return Report(
        scores=scores,
        per_image=per_image,
        statistics=statistics,
        image_ids=image_ids,
        without_prediction=tuple(i for i in references if i not in predictions),
        without_references=tuple(i for i in predictions if i not in references),
        missing=missing,
    )
