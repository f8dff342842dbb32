"""``showtell caption``: captions for files, folders, globs, URLs and stdin."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Unpack

import typer

from showtell.captioner import Captioner, load
from showtell.cli import Interrupted, one_line
from showtell.cli import options as shared
from showtell.cli.descriptions import (
    Descriptions,
    KeepOriginal,
    ReplaceDescription,
    WriteMetadata,
    open_descriptions,
)
from showtell.cli.explanations import Explanations, open_explanations
from showtell.cli.inputs import Input, find_inputs, listed_names
from showtell.cli.outputs import RESUMABLE, Format, Output, done_images, format_for, open_output, writable
from showtell.cli.progress import progress_bar
from showtell.errors import ShowtellError, UsageError

app = typer.Typer()


@app.command(epilog="Exit codes: 0 all done, 1 some inputs failed (the rest are written), 2 wrong usage.")
@shared.takes(shared.CaptionFlags)
def caption(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Files, folders (with all below them), globs ('photos/**/*.jpg'), http(s) URLs, "
            "or - for one image from stdin.",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option("--list", metavar="FILE", help="A file that names an input on each line; - is stdin."),
    ] = None,
    model: shared.Model = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="text, jsonl, csv or coco; by default as FILE's suffix says, else text.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of stdout.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted FILE (jsonl, csv): only what is missing."),
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option("--explain", metavar="DIR", help="Draw where the model looked: a PNG an image, and index.html."),
    ] = None,
    write_metadata: WriteMetadata = False,
    replace_description: ReplaceDescription = False,
    keep_original: KeepOriginal = True,
    batch_size: shared.BatchSize = 16,
    **search: Unpack[shared.CaptionFlags],
) -> None:
    """Caption photos: a line for each caption, `PATH<TAB>CAPTION`, or JSON lines, CSV, COCO results."""
    format = format_for(format, output)
    if resume and (output is None or format not in RESUMABLE):
        raise UsageError("--resume goes on with a jsonl or csv file.", "Say -o FILE.jsonl or -o FILE.csv.")
    if resume and explain:
        raise UsageError("--explain writes a page of all images, and --resume captions some.", "Leave out one of them.")
    names = [*(inputs or []), *(listed_names(listed) if listed else [])]
    if not names:
        raise UsageError("There is no INPUT.", "Name photos or a folder: showtell caption photos/")
    images, problems = find_inputs(names)
    captioner = load(model)
    captions_per_image = captioner.options(**search).num
    if format == "coco" and captions_per_image > 1:
        raise UsageError("The coco format holds one caption for each image.", "Leave out --num, or say jsonl.")
    done = done_images(output, format, captions_per_image) if resume and output else set()
    for problem in problems:
        report(problem)
    # Numbers are places among all the inputs: a resumed run draws the samples that the first would have.
    todo = [(number, image) for number, image in enumerate(images) if writable(image.name) not in done]
    with (
        open_explanations(explain, captioner) if explain else nullcontext() as explanations,
        open_output(output, format, resume=resume) as results,
        open_descriptions(
            wanted=write_metadata, replace=replace_description, keep_original=keep_original
        ) as descriptions,
    ):
        bad = caption_all(
            captioner, search, todo, results, explanations, descriptions, batch_size, bar=output is not None
        )
    if explanations and not explanations.has_attention:
        name = captioner.config.name
        print(f"showtell: {name} has no attention to show; {explain} holds photos and captions.", file=sys.stderr)
    if bad or problems:
        print(f"showtell: {len(images) - bad:,} captioned, {bad + len(problems):,} failed.", file=sys.stderr)
    if bad or problems or (descriptions and descriptions.failed):
        raise typer.Exit(1)


def caption_all(
    captioner: Captioner,
    search_options: Mapping[str, Any],
    images: list[tuple[int, Input]],
    results: Output,
    explanations: Explanations | None,
    descriptions: Descriptions | None,
    batch_size: int,
    *,
    bar: bool,
) -> int:
    """Caption numbered images and write the captions as they come; returns how many images can't be read.

    Raises:
        Interrupted: at Ctrl-C; what was captioned by then is written.
    """
    bad = written = 0
    outcomes = captioner.stream(
        [partial(explanations.read, number, image) if explanations else image.read for number, image in images],
        batch_size=batch_size,
        numbers=[number for number, _ in images],
        attention=explanations is not None,
        **search_options,
    )
    # Where captions appear on the terminal themselves, a bar would only run through them.
    with progress_bar("captioning", len(images), shown=bar or not sys.stdout.isatty()) as advance:
        try:
            for (number, image), outcome in zip(images, outcomes, strict=True):
                if isinstance(outcome, ShowtellError):
                    report(outcome)
                    bad += 1
                    if explanations:
                        explanations.forget(number)
                else:
                    if descriptions:  # before the row: what a resumed run leaves out is described
                        descriptions.add(image.name, outcome)
                    results.write(image.name, outcome)
                    written += 1
                    if explanations:
                        explanations.add(number, image.name, outcome)
                advance()
        except KeyboardInterrupt:
            raise Interrupted(
                f"Stopped by Ctrl-C after {written:,} of {len(images):,} images.",
                "A jsonl or csv FILE goes on with the same command and --resume.",
            ) from None
    return bad


def report(error: ShowtellError) -> None:
    """Tell of one input that failed, while the others go on."""
    print(f"showtell: {one_line(str(error))}", file=sys.stderr)
