"""From captions as people write them to scores: tokenise, score, and say what could not be scored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice

from showtell import __version__
from showtell.errors import DataError, ShowtellError
from showtell.languages import ENGLISH, NAMES, language_of
from showtell.metrics.metric import Floats, FractionDone
from showtell.metrics.table import METRICS, find_metrics
from showtell.metrics.tokens import known_language, sacrebleu_tokens, tokens_name, tokens_of


@dataclass(frozen=True)
class Report:
    """Scores of one set of predictions."""

    scores: dict[str, float]
    """Corpus scores: BLEU-1 .. BLEU-4, METEOR, ROUGE_L, CIDEr (which is CIDEr-D), SPICE."""
    per_image: dict[str, Floats]
    """The scores of each image, `[B]` in the order of `image_ids`."""
    statistics: dict[str, Floats]
    """Metric -> what it sums over images, `[B, F]`, for the metrics that were computed."""
    image_ids: tuple[str, ...]
    """The images that were scored, in the order of the references."""
    candidates: tuple[str, ...]
    """Their captions as tokens, `[B]`."""
    references: tuple[tuple[str, ...], ...]
    """Their references as tokens, `[B]`, at least one each."""
    without_prediction: tuple[str, ...]
    """Images that have references but no prediction; they are not in the scores."""
    without_references: tuple[str, ...]
    """Images that have a prediction but no references; they are not in the scores."""
    missing: dict[str, str]
    """Metrics that were requested but could not be computed, and why."""
    doubts: tuple[str, ...]
    """Why some of the scores mean little for these captions: one sentence each."""
    order_independent: bool
    """Whether tokens are independent of the captions around (see `ptb.tokenise`)."""
    language: str
    """The language of the references, which decides their tokens (see `tokens_of`)."""


def score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Iterable[str] | None = None,
    more: Iterable[str] = (),
    language: str | None = None,
    order_independent: bool = False,
    progress: FractionDone = lambda fraction: None,
) -> Report:
    """Score one caption per image against the image's references.

    Args:
        predictions: image id -> caption.
        references: image id -> people's captions, at least one. Images are scored in this order.
        metrics: names of `METRICS`; by default those that fit the language. Without METEOR, scoring takes a tenth of
            the time.
        more: names of further metrics.
        language: the captions' language, as a code such as "de"; by default it is detected from the references.
        order_independent: give a caption the same tokens in any order (see `ptb.tokenise`), unlike the official
            code.
        progress: called when METEOR's data are built, once for all.

    Raises:
        UsageError: there is no metric of that name, or no language of that code.
        MissingExtraError: the tokens of that language need a package that is not installed.
        DataError: no image has both a prediction and references.
    """
    image_ids = tuple(i for i in references if i in predictions and references[i])
    if not predictions or not any(references.values()):
        raise DataError(f"There are no {'references' if predictions else 'captions to score'}.")
    if not image_ids:
        raise DataError(
            f"None of the {len(predictions)} predicted images is among the {len(references)} references.",
            "Check that both files name images in the same way.",
        )
    said = [caption for i in image_ids for caption in references[i]]
    language = known_language(language) or language_of(said)
    wanted = find_metrics([*(metric.name for metric in find_metrics(metrics, language)), *more])
    written = [predictions[i] for i in image_ids]
    candidates, tokens = (
        tokens_of(captions, language, order_independent=order_independent) for captions in (written, said)
    )
    flat = iter(tokens)
    gold = [tuple(islice(flat, len(references[i]))) for i in image_ids]

    scores: dict[str, float] = {}
    per_image: dict[str, Floats] = {}
    statistics: dict[str, Floats] = {}
    missing: dict[str, str] = {}
    doubts: list[str] = []
    if metrics is None and language != ENGLISH:
        doubts.append(
            f"The references are in {NAMES[language]}, and METEOR is for English, so it is left out. "
            "If they are English, use --language en."
        )
    for metric in wanted:
        try:
            metric.prepare(progress)
            of_images = (
                metric.statistics(written, [references[i] for i in image_ids], language)
                if metric.as_written
                else metric.statistics(candidates, gold)
            )
            doubts += filter(None, [metric.doubt(gold)])
        except (ShowtellError, OSError) as error:  # the others continue
            missing[metric.name] = str(error)
            continue
        statistics[metric.name] = of_images
        scores |= zip(metric.names, metric.from_sums(of_images.sum(0), len(of_images)).tolist(), strict=True)
        per_image |= zip(metric.names, metric.from_sums(of_images, 1).T, strict=True)
    return Report(
        scores=scores,
        per_image=per_image,
        statistics=statistics,
        image_ids=image_ids,
        candidates=tuple(candidates),
        references=tuple(gold),
        without_prediction=tuple(i for i in references if i not in predictions and references[i]),
        without_references=tuple(i for i in predictions if not references.get(i)),
        missing=missing,
        doubts=tuple(doubts),
        order_independent=order_independent,
        language=language,
    )


def signature(report: Report, decoding: str | None = None) -> str:
    """How to get the same scores, on one line without spaces, like sacrebleu's signatures.

    Args:
        report: the scores.
        decoding: how the captions were searched for, if that is known: "beam=3,max_words=20".
    """
    counts = [len(of_image) for of_image in report.references]
    parts = {
        "metrics": ",".join(METRICS[name].signature for name in report.statistics),
        "images": len(report.image_ids),
        "nrefs": "-".join(map(str, sorted({min(counts), max(counts)}))),
        "lang": report.language,
        "tok": tokens_name(report.language, order_independent=report.order_independent),
        "case": "lower",
        **sacrebleu_used(report),
        "decode": (decoding or "unknown").replace(" ", "_").replace("|", "/"),
        "version": f"showtell-{__version__}",
    }
    return "|".join(f"{key}:{value}" for key, value in parts.items())


def sacrebleu_used(report: Report) -> dict[str, str]:
    """The version of sacrebleu, and its tokenizer, if one of its metrics was computed."""
    if not any(METRICS[name].as_written for name in report.statistics):
        return {}
    return {"sacrebleu": f"{version('sacrebleu')},{sacrebleu_tokens(report.language)}"}
