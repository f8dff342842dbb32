"""What `score`, `compare` and `evaluate` share: options, tables, and which metrics are computed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from showtell.metrics import METRICS, Diversity, Report
from showtell.metrics.calibration import Calibration
from showtell.metrics.objects import Invented
from showtell.metrics.table import RANKED_BY

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 5
"""Ids that stderr lists; --json lists all."""


def _named() -> str:
    """All metrics, and what some of them need."""
    named = ", ".join(f"{m.name} (needs {m.needs})" if m.needs else m.name for m in METRICS.values())
    return named.replace("[", r"\[")  # which rich takes for markup


Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="References: COCO annotations, a Karpathy file, a table, or a SPEC such as flickr8k:DIR.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Only this split of REF: train, dev or test.")
]
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help=f"One of {_named()}; may be repeated."),
]
Spice = Annotated[
    bool, typer.Option("--spice", help="Also SPICE, by the Java program of pycocoevalcap, if it is installed.")
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Language of the captions: de, zh, ...; detected from the references by default.",
    ),
]
OrderIndependent = Annotated[
    bool,
    typer.Option("--order-independent", help="Tokenize each caption alone, which the official code does not do."),
]


def missing_though_asked(report: Report, named: Sequence[str] | None) -> bool:
    """Whether a metric that the command line names is missing. METEOR, not part of the core install, is no error."""
    return any(named or not METRICS[name].fits(report.language) for name in report.missing)


def captions_table(system: Diversity, people: Diversity, objects: Invented | None = None) -> "Table":
    """The system's captions beside the first reference of each image, which shows what is normal."""

    def percent(fraction: float | None) -> str:
        return "–" if fraction is None else f"{100 * fraction:.1f} %"

    table = plain_table("captions", "system", "people")
    for label, shown in (
        ("words used", [f"{d.vocabulary:,}" for d in (system, people)]),
        ("words a caption", [f"{d.mean_length:.1f}" for d in (system, people)]),
        ("unique", [percent(d.unique) for d in (system, people)]),
        ('break off ("a man with a")', [percent(d.dangling) for d in (system, people)]),
        ('repeat a word ("a a")', [percent(d.repeated_words) for d in (system, people)]),
        ("repeat three words", [percent(d.repeated_ngrams) for d in (system, people)]),
        ("copied from training", [percent(d.copied) for d in (system, people)]),
    ):
        if system.copied is not None or not label.startswith("copied"):
            table.add_row(label, *shown)
    if objects is not None:  # not for people: their captions define what the photo shows
        table.add_row("invent an object", percent(objects.captions), "")
        table.add_row("objects that are invented", percent(objects.objects), "")
        table.add_row("person invented, where none is", percent(objects.person), "")
        table.add_row("dog invented, where none is", percent(objects.dog), "")
    return table


def calibration_lines(sure: Calibration) -> str:
    """How well a model's confidence matches its captions' scores."""
    return (
        f"confidence: rank correlation with {RANKED_BY} {sure.correlation:.2f}; expected calibration error "
        f"{sure.error:.3f}; {RANKED_BY} of the surer half {sure.surer_half:.2f} x that of all"
    )


def plain_table(*headings: str) -> "Table":
    """An empty table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=False)
    return table


def first_few(ids: Sequence[str]) -> str:
    """Some ids, and how many more there are."""
    return ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else "")
