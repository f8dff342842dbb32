"""The metrics that showtell has. To add one, write its file and put its object here."""

from collections.abc import Iterable, Mapping

from showtell.errors import UsageError
from showtell.languages import ENGLISH
from showtell.metrics.by_sacrebleu import CHRF, SACREBLEU
from showtell.metrics.metric import Metric
from showtell.metrics.official.bleu import BLEU
from showtell.metrics.official.cider import CIDER
from showtell.metrics.official.meteor import METEOR
from showtell.metrics.official.rouge import ROUGE_L
from showtell.metrics.official.spice import SPICE

METRICS = {metric.name: metric for metric in (BLEU, METEOR, ROUGE_L, CIDER, SPICE, SACREBLEU, CHRF)}

RANKING = ("CIDEr", "METEOR", "ROUGE_L", "BLEU-4", "SPICE")
"""Images are ranked by the first of these scores that was computed, or else by any other."""
RANKED_BY = RANKING[0]
"""The score that ranks the epochs of a training run, and captions."""


def rank_of(scores: Mapping[str, float]) -> tuple[float, ...]:
    """The key that ranks sets of captions of the same images: their scores in the order of `RANKING`.

    Only the first counts, unless it is equal: CIDEr is 0 if all references are alike.
    """
    return tuple(scores.get(name, 0.0) for name in RANKING)


def find_metrics(names: Iterable[str] | None = None, language: str = ENGLISH) -> list[Metric]:
    """The metrics with these names, in the table's order; without names, those that fit the language.

    Names may be in any case, with or without `-` and `_`.

    Raises:
        UsageError: there is no metric of that name.
    """
    if names is None:
        return [metric for metric in METRICS.values() if metric.fits(language)]
    wanted = {_plain(name): name for name in names}
    if unknown := wanted.keys() - set(map(_plain, METRICS)):
        raise UsageError(f"There is no metric {wanted[min(unknown)]}.", f"Choose from: {', '.join(METRICS)}.")
    return [metric for name, metric in METRICS.items() if _plain(name) in wanted]


def metric_of(score: str) -> Metric:
    """The metric that a score belongs to: BLEU for BLEU-4."""
    return next(metric for metric in METRICS.values() if score in metric.names)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
