"""From captions as people write them to scores: tokenise, score, and say what could not be scored."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from showtell import __version__
from showtell.errors import DataError, ShowtellError, UsageError
from showtell.metrics.bleu import ORDERS, bleu_scores, bleu_statistics
from showtell.metrics.cider import cider_d
from showtell.metrics.meteor import meteor_scores, meteor_statistics
from showtell.metrics.meteor_data import Progress
from showtell.metrics.ptb import tokenise
from showtell.metrics.rouge import rouge_l
from showtell.metrics.spice import spice

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")
ALL_METRICS = (*METRICS, "SPICE")
"""SPICE is computed only where it is asked for: it is a Java program."""

VERSIONS = {"BLEU": "BLEU", "METEOR": "METEOR-1.5", "ROUGE_L": "ROUGE-L", "CIDEr": "CIDEr-D", "SPICE": "SPICE-1.0"}
"""What each is called in a signature."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """Scores of one set of predictions."""

    scores: dict[str, float]
    """Corpus scores: BLEU-1 .. BLEU-4, METEOR, ROUGE_L, CIDEr (which is CIDEr-D), SPICE."""
    per_image: dict[str, Floats]
    """The same for each image, `[B]` in the order of `image_ids`."""
    statistics: dict[str, Floats]
    """What BLEU and METEOR add up over images before they divide, `[B, ...]`; the others are means."""
    image_ids: tuple[str, ...]
    """The images that were scored, in the order of the references."""
    candidates: tuple[str, ...]
    """Their captions as tokens, `[B]`."""
    references: tuple[tuple[str, ...], ...]
    """Their references as tokens, `[B]`, one or more each."""
    without_prediction: tuple[str, ...]
    """Images that have references but no prediction; they are not in the scores."""
    without_references: tuple[str, ...]
    """Images that have a prediction but no references; they are not in the scores."""
    missing: dict[str, str]
    """Metrics that were asked for but could not be computed, and why."""
    order_independent: bool
    """Whether tokens do not depend on the captions around (see `ptb.tokenise`)."""


def score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Collection[str] = METRICS,
    order_independent: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Score one caption an image against the image's references.

    Args:
        predictions: image id -> caption.
        references: image id -> its captions by people, one at least. Images are scored in this order.
        metrics: some of `ALL_METRICS`. Without METEOR it takes a tenth of the time.
        order_independent: give a caption the same tokens wherever it stands (see `ptb.tokenise`), as the
            official code does not.
        progress: told the share done, 0 to 1, when METEOR's data are built, once for all.

    Raises:
        UsageError: there is no metric of that name.
        DataError: no image has both a prediction and references, or an image's list of references is empty.
    """
    if unknown := sorted(set(metrics) - set(ALL_METRICS)):
        raise UsageError(f"There is no metric {unknown[0]}.", f"Choose from: {', '.join(ALL_METRICS)}.")
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
    flat = iter(tokenise([c for i in image_ids for c in references[i]], order_independent=order_independent))
    gold = [tuple(islice(flat, len(references[i]))) for i in image_ids]

    scores: dict[str, float] = {}
    per_image: dict[str, Floats] = {}
    statistics: dict[str, Floats] = {}
    missing: dict[str, str] = {}
    if "BLEU" in metrics:
        statistics["BLEU"] = bleu_statistics(candidates, gold).astype(np.float64)
        names = [f"BLEU-{n}" for n in range(1, ORDERS + 1)]
        scores |= zip(names, bleu_scores(statistics["BLEU"].sum(0)).tolist(), strict=True)
        per_image |= zip(names, bleu_scores(statistics["BLEU"]).T, strict=True)
    if "METEOR" in metrics:
        with _or_missing("METEOR", missing):
            statistics["METEOR"] = meteor_statistics(candidates, gold, progress=progress)
            scores["METEOR"] = float(meteor_scores(statistics["METEOR"].sum(0)))
            per_image["METEOR"] = meteor_scores(statistics["METEOR"])
    if "ROUGE_L" in metrics:
        scores["ROUGE_L"], per_image["ROUGE_L"] = rouge_l(candidates, gold)
    if "CIDEr" in metrics:
        scores["CIDEr"], per_image["CIDEr"] = cider_d(candidates, gold)
    if "SPICE" in metrics:
        with _or_missing("SPICE", missing):
            scores["SPICE"], per_image["SPICE"] = spice(candidates, gold)
    return Report(
        scores=scores,
        per_image=per_image,
        statistics=statistics,
        image_ids=image_ids,
        candidates=tuple(candidates),
        references=tuple(gold),
        without_prediction=tuple(i for i in references if i not in predictions),
        without_references=tuple(i for i in predictions if i not in references),
        missing=missing,
        order_independent=order_independent,
    )


@contextmanager
def _or_missing(metric: str, missing: dict[str, str]) -> Iterator[None]:
    """Record why a metric that needs more than this package can't be had; the others go on."""
    try:
        yield
    except (ShowtellError, OSError) as error:
        missing[metric] = str(error)


def signature(report: Report, decoding: str | None = None) -> str:
    """What another must do to get the same scores, on one line without a space, as sacrebleu has it.

    Args:
        report: the scores.
        decoding: how the captions were searched for, if that is known: "beam=3,max_words=20".
    """
    computed = dict.fromkeys(metric.partition("-")[0] for metric in report.scores)
    counts = [len(of_image) for of_image in report.references]
    parts = {
        "metrics": ",".join(VERSIONS[metric] for metric in computed),
        "images": len(report.image_ids),
        "nrefs": "-".join(map(str, sorted({min(counts), max(counts)}))),
        "tok": "ptb-each-alone" if report.order_independent else "ptb",
        "case": "lower",
        "decode": (decoding or "unknown").replace(" ", "_").replace("|", "/"),
        "version": f"showtell-{__version__}",
    }
    return "|".join(f"{key}:{value}" for key, value in parts.items())
