"""The scores that captioning papers report, equal to the official COCO caption evaluation code, without Java.

`report.score` takes captions as people write them. The metrics themselves take tokenised captions: strings
of tokens joined by single spaces, as the official tokeniser returns them.
"""

from showtell.metrics.diversity import Diversity, diversity
from showtell.metrics.metric import Metric
from showtell.metrics.official.bleu import bleu
from showtell.metrics.official.cider import cider_d
from showtell.metrics.official.meteor import meteor
from showtell.metrics.official.rouge import rouge_l
from showtell.metrics.official.spice import spice
from showtell.metrics.report import Report, score, signature
from showtell.metrics.table import METRICS

__all__ = [
    "METRICS",
    "Diversity",
    "Metric",
    "Report",
    "bleu",
    "cider_d",
    "diversity",
    "meteor",
    "rouge_l",
    "score",
    "signature",
    "spice",
]
