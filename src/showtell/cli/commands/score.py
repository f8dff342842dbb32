"""``showtell score``: captions against people's, in the metrics that papers report."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showtell.cli import scores
from showtell.cli.progress import meteor_progress, tell
from showtell.data import Predictions, matched, read_predictions, read_references
from showtell.errors import UsageError
from showtell.files import check_writable, write_file
from showtell.metrics import METRICS, Diversity, Report, diversity, signature
from showtell.metrics import score as score_captions
from showtell.metrics.tokens import tokens_of

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer()


@app.command(epilog="Exit codes: 0 scored, 1 a metric named by --metric or --spice is missing, 2 wrong usage.")
def score(
    pred: Annotated[
        str,
        typer.Argument(
            metavar="PRED",
            help="Captions: COCO results, JSONL, CSV, or what caption and evaluate wrote.",
            show_default=False,
        ),
    ],
    ref: scores.Ref,
    split: scores.Split = None,
    metric: scores.Metric = None,
    spice: scores.Spice = False,
    language: scores.Language = None,
    train: Annotated[
        str | None,
        typer.Option("--train", metavar="REF", help="Training captions: how many of PRED are copied from them?"),
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option("--per-image", metavar="FILE", help="Write each image's scores, to a .csv or .jsonl file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all digits and ids.")] = False,
    order_independent: scores.OrderIndependent = False,
) -> None:
    """Score captions against people's: BLEU, METEOR, ROUGE-L, CIDEr, as the official COCO code does, without Java."""
    if per_image is not None:
        if per_image.suffix.lower() not in (".csv", ".jsonl"):
            raise UsageError(f"{per_image}: --per-image writes CSV or JSON lines.", "Name a .csv or .jsonl file.")
        check_writable(per_image)
    references = read_references(ref, split)
    predictions = matched(read_predictions(pred), references)
    tell(*references.notes, *predictions.notes)
    copied = training_captions(train) if train else None
    with meteor_progress() as progress:
        report = score_captions(
            predictions.captions,
            references.captions,
            metrics=metric or None,
            more=["SPICE"] * spice,
            language=language,
            order_independent=order_independent,
            progress=progress,
        )
    tell(*report.doubts)
    training = None if copied is None else frozenset(tokens_of(copied, report.language))
    people = diversity([of_image[0] for of_image in report.references], training)
    system = diversity(report.candidates, training)
    mark = signature(report, predictions.decoding)
    if per_image is not None:
        write_per_image(per_image, report, predictions)
    if as_json:
        print(json.dumps(facts(report, predictions, system, people, mark), indent=1, ensure_ascii=False))
    else:
        print_report(report, system, people, mark)
        tell_unmatched(report, predictions, pred)
    if scores.missing_though_asked(report, metric):
        raise typer.Exit(1)


def training_captions(spec: str) -> list[str]:
    """The captions that a system was trained on: the train split where there are splits.

    Raises:
        DataError: there are none.
    """
    try:
        training = read_references(spec, "train")
    except UsageError:
        training = read_references(spec)
    return [caption for of_image in training.captions.values() for caption in of_image]


def print_report(report: Report, system: Diversity, people: Diversity, mark: str) -> None:
    """The scores, what the captions are like, and the signature."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    references = sum(map(len, report.references))
    console.print(f"{len(report.image_ids):,} images, {references:,} references\n")
    console.print(scores_table(report))
    for name, reason in report.missing.items():
        console.print(f"{name} is missing: {reason}")
    console.print()
    console.print(scores.captions_table(system, people))
    console.print(f"\n{mark}")


def scores_table(report: Report) -> "Table":
    """A row for each score, also for those that are missing."""
    table = scores.plain_table("metric", "score")
    for metric in METRICS.values():
        for name in metric.names:
            if name in report.scores:
                table.add_row(name, metric.printed(report.scores[name]))
            elif metric.name in report.missing:
                table.add_row(name, "missing")
    return table


def tell_unmatched(report: Report, predictions: Predictions, pred: str) -> None:
    """Say on stderr which ids have no counterpart, and how many captions were not scored."""
    for what, ids in (
        ("in REF have no caption in PRED", report.without_prediction),
        ("in PRED have no references", report.without_references),
    ):
        if ids:
            tell(f"{len(ids):,} images {what}; they are not scored: {scores.first_few(ids)}")
    if predictions.spare:
        tell(f"{pred} has {predictions.spare:,} more captions of the same images; only the first of each counts.")


def facts(report: Report, predictions: Predictions, system: Diversity, people: Diversity, mark: str) -> dict[str, Any]:
    return {
        "images": len(report.image_ids),
        "references": sum(map(len, report.references)),
        "scores": report.scores,
        "missing": report.missing,
        "doubts": list(report.doubts),
        "captions": {"system": asdict(system), "people": asdict(people)},
        "without_prediction": list(report.without_prediction),
        "without_references": list(report.without_references),
        "spare_captions": predictions.spare,
        "signature": mark,
    }


def write_per_image(path: Path, report: Report, predictions: Predictions) -> None:
    """A row for each image: its id, its caption and its scores, with all digits.

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
