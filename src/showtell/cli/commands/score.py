"""``showtell score``: captions against people's, in the metrics that papers report."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showtell.cli.progress import meteor_progress
from showtell.data import Predictions, matched, read_predictions, read_references
from showtell.errors import UsageError
from showtell.files import check_writable, write_file
from showtell.metrics import ALL_METRICS, METRICS, Diversity, Report, diversity, signature
from showtell.metrics import score as score_captions
from showtell.metrics.ptb import tokenise

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 5
"""Ids without a counterpart that stderr lists; --json lists all."""
BLEU = tuple(f"BLEU-{n}" for n in range(1, 5))

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
    typer.Option("--metric", metavar="NAME", help=f"One of {', '.join(ALL_METRICS)}; may be repeated."),
]
Spice = Annotated[bool, typer.Option("--spice", help="SPICE too, by pycocoevalcap's Java program where it is.")]
OrderIndependent = Annotated[
    bool,
    typer.Option("--order-independent", help="Tokens of a caption do not depend on the next (not as officially)."),
]

app = typer.Typer()


@app.command(epilog="Exit codes: 0 scored, 1 a metric that --metric or --spice names can't be had, 2 wrong usage.")
def score(
    pred: Annotated[
        str,
        typer.Argument(
            metavar="PRED",
            help="Captions: COCO results, JSONL, CSV, or what caption and evaluate wrote.",
            show_default=False,
        ),
    ],
    ref: Ref,
    split: Split = None,
    metric: Metric = None,
    spice: Spice = False,
    train: Annotated[
        str | None,
        typer.Option("--train", metavar="REF", help="Training captions: how many of PRED are copied from them?"),
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option("--per-image", metavar="FILE", help="Write each image's scores, to a .csv or .jsonl file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all digits and ids.")] = False,
    order_independent: OrderIndependent = False,
) -> None:
    """Score captions against people's: BLEU, METEOR, ROUGE-L, CIDEr, as the official COCO code does, without Java."""
    if per_image is not None:
        if per_image.suffix.lower() not in (".csv", ".jsonl"):
            raise UsageError(f"{per_image} is of no kind that --per-image writes.", "Name a .csv or .jsonl file.")
        check_writable(per_image)
    metrics = asked_metrics(metric, spice)
    references = read_references(ref, split)
    predictions = matched(read_predictions(pred), references)
    training = training_captions(train) if train else None
    with meteor_progress() as progress:
        report = score_captions(
            predictions.captions,
            references.captions,
            metrics=metrics,
            order_independent=order_independent,
            progress=progress,
        )
    people = diversity([of_image[0] for of_image in report.references], training)
    system = diversity(report.candidates, training)
    mark = signature(report, predictions.decoding)
    if per_image is not None:
        write_per_image(per_image, report, predictions)
    if as_json:
        print(json.dumps(facts(report, predictions, system, people, mark), indent=1, ensure_ascii=False))
    else:
        print_report(report, metrics, system, people, mark)
        tell_unmatched(report, predictions, pred)
    if missing_though_asked(report, metric, spice):
        raise typer.Exit(1)


def asked_metrics(named: Sequence[str] | None, spice: bool) -> list[str]:
    """The metrics to compute, by the names of `ALL_METRICS`, in whatever case they are written.

    Raises:
        UsageError: there is no such metric.
    """
    plain = {name.lower().replace("_", "").replace("-", ""): name for name in ALL_METRICS}
    found = []
    for name in named or METRICS:
        metric = plain.get(name.lower().replace("_", "").replace("-", ""))
        if metric is None:
            raise UsageError(f"There is no metric {name}.", f"Choose from: {', '.join(ALL_METRICS)}.")
        found.append(metric)
    return [metric for metric in ALL_METRICS if metric in found or (metric == "SPICE" and spice)]


def missing_though_asked(report: Report, named: Sequence[str] | None, spice: bool) -> bool:
    """Whether a metric is missing that the command line names; METEOR, left out of the core install, is no error."""
    return bool(report.missing) and (bool(named) or (spice and "SPICE" in report.missing))


def training_captions(where: str) -> frozenset[str]:
    """The tokens of the captions that a system was trained on: the train split where there are splits.

    Raises:
        DataError: there are none.
    """
    try:
        training = read_references(where, "train")
    except UsageError:
        training = read_references(where)
    captions = [caption for of_image in training.captions.values() for caption in of_image]
    return frozenset(tokenise(captions, order_independent=True))


def print_report(report: Report, metrics: Sequence[str], system: Diversity, people: Diversity, mark: str) -> None:
    """The scores, what the captions are like, and the signature."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    references = sum(map(len, report.references))
    console.print(f"{len(report.image_ids):,} images, {references:,} references\n")
    console.print(scores_table(report, metrics))
    for name, reason in report.missing.items():
        console.print(f"{name} is missing: {reason}")
    console.print()
    console.print(diversity_table(system, people))
    console.print(f"\n{mark}")


def rows_of(metrics: Sequence[str]) -> list[str]:
    """The scores of some metrics, by name: BLEU has four."""
    return [name for metric in metrics for name in (BLEU if metric == "BLEU" else (metric,))]


def scores_table(report: Report, metrics: Sequence[str]) -> "Table":
    """A row a score, of those too that can't be had."""
    table = plain_table("metric", "score")
    for name in rows_of(metrics):
        table.add_row(name, f"{report.scores[name]:.4f}" if name in report.scores else "missing")
    return table


def diversity_table(system: Diversity, people: Diversity) -> "Table":
    """The system's captions beside the first reference of each image, which shows what is normal."""

    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.1f} %"

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
    return table


def plain_table(*headings: str) -> "Table":
    """An empty table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=False)
    return table


def tell_unmatched(report: Report, predictions: Predictions, pred: str) -> None:
    """Say on stderr which ids have no counterpart, and which captions were not looked at."""
    for what, ids in (
        ("in REF have no caption in PRED", report.without_prediction),
        ("in PRED have no references", report.without_references),
    ):
        if ids:
            print(f"showtell: {len(ids):,} images {what}; they are not scored: {first_few(ids)}", file=sys.stderr)
    if predictions.spare:
        print(
            f"showtell: {pred} has {predictions.spare:,} further captions of its images; the first counts.",
            file=sys.stderr,
        )


def first_few(ids: Sequence[str]) -> str:
    """Some ids, and how many more there are."""
    return ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else "")


def facts(report: Report, predictions: Predictions, system: Diversity, people: Diversity, mark: str) -> dict[str, Any]:
    """All that `--json` prints."""
    return {
        "images": len(report.image_ids),
        "references": sum(map(len, report.references)),
        "scores": report.scores,
        "missing": report.missing,
        "captions": {"system": asdict(system), "people": asdict(people)},
        "without_prediction": list(report.without_prediction),
        "without_references": list(report.without_references),
        "spare_captions": predictions.spare,
        "signature": mark,
    }


def write_per_image(path: Path, report: Report, predictions: Predictions) -> None:
    """A row an image: its id, its caption and its scores, with all digits.

    Raises:
        UsageError: the file can't be written.
    """
    columns = {name: values.tolist() for name, values in report.per_image.items()}
    rows = [
        {"image_id": image_id, "caption": predictions.captions[image_id]}
        | {name: values[number] for name, values in columns.items()}
        for number, image_id in enumerate(report.image_ids)
    ]
    if path.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_file(path, text)
