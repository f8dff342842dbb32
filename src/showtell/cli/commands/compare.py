"""``showtell compare``: two systems on the same images; is the difference more than the luck of the draw?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell.cli import scores
from showtell.cli.progress import meteor_progress, tell
from showtell.data import Predictions, References, matched, read_predictions, read_references
from showtell.errors import DataError
from showtell.files import check_writable, write_file
from showtell.metrics import Report, score, signature
from showtell.metrics.comparison import Comparison, Contrast
from showtell.metrics.significance import compare as compare_reports
from showtell.metrics.significance import most_different
from showtell.metrics.table import RANKING, metric_of

app = typer.Typer()


@app.command(epilog="Exit codes: 0 compared, 1 a metric named by --metric or --spice is missing, 2 wrong usage.")
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Captions of the first system.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Captions of the second system.", show_default=False)],
    ref: scores.Ref,
    split: scores.Split = None,
    metric: scores.Metric = None,
    spice: scores.Spice = False,
    language: scores.Language = None,
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", help="How many resampled sets and random swaps.")
    ] = 2000,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="C", help="Confidence level of the intervals, between 0 and 1.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same numbers.")] = 0,
    show: Annotated[
        int, typer.Option("--show", min=0, metavar="N", help="Images to show where the systems differ most.")
    ] = 10,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the photos.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all digits and ids.")] = False,
    order_independent: scores.OrderIndependent = False,
) -> None:
    """Compare two systems: confidence intervals, two tests of significance, the images where they differ most."""
    if page is not None:
        check_writable(page)
    references = read_references(ref, split)
    sides = [matched(read_predictions(file), references) for file in (first, second)]
    tell(*references.notes, *(note for side in sides for note in side.notes))
    both = [i for i, said in references.captions.items() if said and all(i in side.captions for side in sides)]
    if not both:
        raise DataError(
            f"No image of {ref} has a caption in both {first} and {second}.",
            "Check that the files name images in the same way: 'showtell score' lists what does not match.",
        )
    with meteor_progress() as progress:
        # CIDEr's weights depend on the set of images, so both are scored on the same one.
        reports = [
            score(
                {image_id: side.captions[image_id] for image_id in both},
                {image_id: references.captions[image_id] for image_id in both},
                metrics=metric or None,
                more=["SPICE"] * spice,
                language=language,
                order_independent=order_independent,
                progress=progress,
            )
            for side in sides
        ]
    tell(*reports[0].doubts)
    found = compared(
        (first, second), sides, references, reports, draws=draws, confidence=confidence, seed=seed, show=show
    )
    if page is not None:
        from showtell.pages.comparison import comparison_page

        write_file(page, comparison_page(found))
    if as_json:
        print(json.dumps(facts(found), indent=1, ensure_ascii=False))
    else:
        print_comparison(found)
    if scores.missing_though_asked(reports[0], metric):
        raise typer.Exit(1)


def compared(
    files: tuple[str, str],
    sides: list[Predictions],
    references: References,
    reports: list[Report],
    *,
    draws: int,
    confidence: float,
    seed: int,
    show: int,
) -> Comparison:
    """The comparison of two scored systems.

    Raises:
        DataError: no metric could be computed.
        UsageError: `draws` or `confidence` is out of range.
    """
    first, second = reports
    ranked_by = next((name for name in (*RANKING, *first.scores) if name in first.scores), None)
    if ranked_by is None:
        raise DataError("There is no score to compare by.", " ".join(first.missing.values()))
    differences = compare_reports(first, second, draws=draws, confidence=confidence, seed=seed)
    gain = metric_of(ranked_by).gain(first.per_image[ranked_by], second.per_image[ranked_by])
    place_of = {image_id: place for place, image_id in enumerate(first.image_ids)}
    contrasts = [
        Contrast(
            image_id=image_id,
            first=sides[0].captions[image_id],
            second=sides[1].captions[image_id],
            first_score=float(first.per_image[ranked_by][place_of[image_id]]),
            second_score=float(second.per_image[ranked_by][place_of[image_id]]),
            references=tuple(references.captions[image_id]),
            path=references.paths.get(image_id),
        )
        for image_id, difference in most_different(first, second, ranked_by, show)
        if difference
    ]
    with_references = {image_id for image_id, said in references.captions.items() if said}
    ids = [set(side.captions) & with_references for side in sides]
    left_out = {
        "have no references": sorted((set(sides[0].captions) | set(sides[1].captions)) - with_references),
        "have a caption in A only": sorted(ids[0] - ids[1]),
        "have a caption in B only": sorted(ids[1] - ids[0]),
        "have a caption in neither": [i for i in references.captions if i in with_references - ids[0] - ids[1]],
    }
    return Comparison(
        names=short_names(*files),
        images=len(first.image_ids),
        references=sum(map(len, first.references)),
        differences=differences,
        missing=first.missing,
        doubts=first.doubts,
        ranked_by=ranked_by,
        wins=(int((gain < 0).sum()), int((gain > 0).sum()), int((gain == 0).sum())),
        contrasts=contrasts,
        left_out={why: images for why, images in left_out.items() if images},
        draws=draws,
        confidence=confidence,
        seed=seed,
        signatures=(signature(first, sides[0].decoding), signature(second, sides[1].decoding)),
    )


def short_names(first: str, second: str) -> tuple[str, str]:
    """What tells two files apart: their names, or as much of their paths as differs."""
    paths = [Path(first), Path(second)]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if names[0] != names[1]:
            return names[0], names[1]
    return first, second


def print_comparison(found: Comparison) -> None:
    """The table of scores, the images that differ most, and what was left out."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for letter, name in zip("AB", found.names, strict=True):
        console.print(f"{letter}: {name}")
    console.print(f"{found.images:,} images, {found.references:,} references\n")
    table = scores.plain_table(
        "metric", "A", "B", "B - A", f"{100 * found.confidence:g} % interval", "bootstrap p", "swaps p"
    )
    for d in found.differences:
        printed = metric_of(d.metric).printed
        interval = " .. ".join(printed(end, "+") for end in d.interval)
        row = [printed(d.first), printed(d.second), printed(d.difference, "+"), interval]
        table.add_row(d.metric, *row, f"{d.p_bootstrap:.4f}", f"{d.p_randomisation:.4f}")
    console.print(table)
    for name, reason in found.missing.items():
        console.print(f"{name} is missing: {reason}")
    a, b, same = found.wins
    console.print(f"\nBy {found.ranked_by}, A is better on {a:,} images, B on {b:,}; equal on {same:,}.")
    printed = metric_of(found.ranked_by).printed
    for contrast in found.contrasts:
        console.print(f"\n{contrast.image_id}")
        console.print(f"  A {printed(contrast.first_score):>7}  {contrast.first}")
        console.print(f"  B {printed(contrast.second_score):>7}  {contrast.second}")
    console.print()
    for letter, mark in zip("AB", found.signatures, strict=True):
        console.print(f"{letter} {mark}")
    for why, images in found.left_out.items():
        tell(f"{len(images):,} images {why}; they are not compared: {scores.first_few(images)}")


def facts(found: Comparison) -> dict[str, Any]:
    return {
        "first": found.names[0],
        "second": found.names[1],
        "images": found.images,
        "references": found.references,
        "metrics": [asdict(difference) | {"difference": difference.difference} for difference in found.differences],
        "missing": found.missing,
        "doubts": list(found.doubts),
        "ranked_by": found.ranked_by,
        "wins": dict(zip(("first", "second", "equal"), found.wins, strict=True)),
        "most_different": [
            {key: value for key, value in asdict(contrast).items() if key != "path"} for contrast in found.contrasts
        ],
        "left_out": found.left_out,
        "draws": found.draws,
        "confidence": found.confidence,
        "seed": found.seed,
        "signatures": list(found.signatures),
    }
