"""BLEU and chrF as sacrebleu computes them (Post 2018, Popović 2015), for captions in languages other than English.

Both score captions as people write them, in lower case: sacrebleu cuts them into words itself.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from showtell.errors import needs
from showtell.languages import ENGLISH
from showtell.metrics.metric import Floats, Metric
from showtell.metrics.tokens import sacrebleu_tokens

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric


def prepare(progress: object) -> None:
    """Raises MissingExtraError if sacrebleu is not installed."""
    with needs("languages", "sacreBLEU and chrF"):
        import sacrebleu  # noqa: F401


def bleu(language: str) -> "SacrebleuMetric":
    """sacrebleu's BLEU, with the language's tokenizer."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True, force=True, tokenize=sacrebleu_tokens(language))


def chrf() -> "SacrebleuMetric":
    """sacrebleu's chrF2, for any language."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(lowercase=True)


def statistics(metric: Any, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """What the metric counts, `[B, F]`, of B captions and one or more references of each."""
    most = max(map(len, references))
    said = [normalize("NFC", caption) for caption in candidates]  # the form that models write
    people = [[normalize("NFC", caption) for caption in of_image] for of_image in references]
    streams = [[texts[n] if n < len(texts) else None for texts in people] for n in range(most)]
    return np.array(metric._extract_corpus_statistics(said, streams), dtype=np.float64)


def from_sums(metric: Any, sums: Floats) -> Floats:
    """The metric of summed statistics `[..., F]`, from 0 to 1: `[..., 1]`."""
    rows = sums.reshape(-1, sums.shape[-1])
    scores = [metric._compute_score_from_stats(row.tolist()).score / 100 for row in rows]
    return np.array(scores).reshape(*sums.shape[:-1], 1)


def other_than_english(language: str) -> bool:
    """True for other languages: English has its own scores, which papers report."""
    return language != ENGLISH


SACREBLEU = Metric(
    "sacreBLEU",
    signature="sacreBLEU",
    statistics=lambda said, people, language=ENGLISH: statistics(bleu(language), said, people),
    as_written=True,
    from_sums=lambda sums, images: from_sums(bleu(ENGLISH), sums),  # the words are counted by now
    needs="showtell[languages]",
    prepare=prepare,
    fits=other_than_english,
    quick=False,
)
CHRF = Metric(
    "chrF",
    signature="chrF2",
    statistics=lambda said, people, language=ENGLISH: statistics(chrf(), said, people),
    as_written=True,
    from_sums=lambda sums, images: from_sums(chrf(), sums),
    needs="showtell[languages]",
    prepare=prepare,
    fits=other_than_english,
    quick=False,
)
