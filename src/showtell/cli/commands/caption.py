"""``showtell caption``: captions for files, folders, globs, URLs, stdin, tar shards and Parquet tables."""

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell.captioner import Caption, Captioner, load
from showtell.cli import cluster
from showtell.cli import options as shared
from showtell.cli.progress import progress_bar, tell
from showtell.cli.write_metadata import (
    Descriptions,
    KeepOriginal,
    ReplaceDescription,
    WriteMetadata,
    open_descriptions,
)
from showtell.confidence import GUESS
from showtell.errors import Interrupted, ShowtellError, UsageError
from showtell.images.decode import Source
from showtell.images.sources import find_images, listed_names
from showtell.images.storage import StoredImage
from showtell.images.tables import in_order
from showtell.pages.explanations import Explanations, open_explanations
from showtell.results.outputs import Format, Output, format_for, open_output
from showtell.results.sidecars import Sidecars
from showtell.search.options import SearchOptions

app = typer.Typer()


@app.command(epilog="Exit codes: 0 all done, 1 some inputs failed (the rest are written), 2 wrong usage.")
@shared.takes_search_options()
def caption(
    inputs: shared.Inputs = None,
    listed: shared.Listed = None,
    column: shared.Column = None,
    model: shared.Model = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="text, jsonl, csv, tsv, coco, parquet or tar; by default as FILE's suffix says, else text. "
            "txt: a text file beside each photo.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write here; .gz compresses. Without it, or with -, write to stdout."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted FILE: add only what is missing."),
    ] = False,
    prepend: Annotated[
        str, typer.Option("--prepend", metavar="TEXT", help="With --format txt: add this before each caption.")
    ] = "",
    append: Annotated[
        str, typer.Option("--append", metavar="TEXT", help="With --format txt: add this after each caption.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="With --format txt: replace existing texts.")] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="DIR", help="Draw where the model looked: a PNG for each image, and index.html."
        ),
    ] = None,
    write_metadata: WriteMetadata = False,
    replace_description: ReplaceDescription = False,
    keep_original: KeepOriginal = True,
    min_confidence: shared.MinConfidence = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Add how sure the model is of each caption: sure, unsure, a guess.")
    ] = False,
    batch_size: shared.BatchSize = 16,
    engine: cluster.EngineOrCluster = "auto",
    out: cluster.Out = None,
    workers: cluster.Workers = None,
    threads: cluster.Threads = 1,
    part_size: cluster.PartSize = 1000,
    worker_engine: cluster.WorkerEngine = "onnx",
    **search: Any,
) -> None:
    """Caption photos: a line for each caption, `PATH<TAB>CAPTION`, or JSON lines, CSV, COCO results,
    Parquet, or a tar shard of the images with their captions."""
    names = [*(inputs or []), *(listed_names(listed) if listed else [])]
    if not names:
        raise UsageError("There is no INPUT.", "Name photos or a folder: showtell caption photos/")
    if engine == "ray":
        if format or output or explain or write_metadata:
            raise UsageError(
                "--engine ray writes Parquet files only.",
                "Use --out DIR, and leave out -o, --format, --explain and --write-metadata.",
            )
        if min_confidence is not None or confidence:
            raise UsageError(
                "--engine ray writes all captions, with their confidence.",
                "Leave out --min-confidence and --confidence.",
            )
        cluster.caption_on_cluster(
            names,
            column,
            model,
            search,
            out=out,
            resume=resume,
            workers=workers,
            threads=threads,
            part_size=part_size,
            batch_size=batch_size,
            engine=worker_engine,
        )
        return
    if str(output) == "-":
        output = None
    if out or workers:
        raise UsageError(f"{'--out' if out else '--workers'} is for a cluster.", "Add --engine ray, or use -o FILE.")
    format = format_for(format, output)
    if resume and output is None:
        raise UsageError("--resume continues a file.", "Name it with -o FILE.")
    if resume and explain:
        raise UsageError("--explain shows all images, and --resume captions only some.", "Leave out one of the two.")
    if (prepend or append or overwrite) and format != "txt":
        raise UsageError("--prepend, --append and --overwrite are for --format txt.", "Leave them out, or add it.")
    images, finder = find_images(names, column)
    sidecars = Sidecars(images, prepend=prepend, append=append, overwrite=overwrite) if format == "txt" else None
    captioner = load(model, threads=1, engine="auto" if engine == "local" else engine)
    options = captioner.options(**search)
    if format == "coco" and options.num > 1:
        raise UsageError("The coco format holds one caption for each image.", "Use --num 1, or --format jsonl.")
    if min_confidence is not None or confidence:
        captioner.refuse_unless_confident()
    least = min_confidence or 0.0
    made_with = {**what_captions_depend_on(captioner, options), "min_confidence": least} if output else {}
    with (
        open_explanations(explain, captioner) if explain else nullcontext() as explanations,
        nullcontext(sidecars)
        if sidecars
        else open_output(output, format, made_with, num=options.num, resume=resume, sure=confidence) as results,
        open_descriptions(
            wanted=write_metadata,
            replace=replace_description,
            keep_original=keep_original,
            least=GUESS if min_confidence is None else min_confidence,
        ) as descriptions,
    ):
        tell(*finder.notes())
        bad = caption_all(
            captioner,
            search,
            images,
            results,
            explanations,
            descriptions,
            batch_size,
            least,
            bar=output is not None or sidecars is not None,
        )
    if sidecars:
        tell(sidecars.summary())
    if explanations and not explanations.has_attention:
        tell(f"{captioner.config.name} has no attention to show; {explain} holds photos and captions.")
    if bad or finder.problems:
        tell(f"{len(images) - bad:,} captioned, {bad + len(finder.problems):,} failed.")
    if bad or finder.problems or (descriptions and descriptions.failed):
        raise typer.Exit(1)


def what_captions_depend_on(captioner: Captioner, options: SearchOptions) -> dict[str, Any]:
    """The model's name with a hash of its config and vocabulary, its engine, and the search options."""
    said = captioner.config.model_dump_json() + captioner.tokenizer.to_json()
    return {
        "model": f"{captioner.config.name} {hashlib.sha256(said.encode()).hexdigest()[:8]}",
        "engine": captioner.engine.arithmetic,
        **asdict(options),
    }


def caption_all(
    captioner: Captioner,
    search_options: Mapping[str, Any],
    images: Sequence[StoredImage],
    results: Output,
    explanations: Explanations | None,
    descriptions: Descriptions | None,
    batch_size: int,
    least: float,
    *,
    bar: bool,
) -> int:
    """Caption images and write the captions as they come; images that can't be read are listed at the end.

    Returns:
        How many images could not be read.

    Raises:
        Interrupted: at Ctrl-C; what was captioned by then is written.
    """
    failures: dict[int, ShowtellError] = {}
    is_done = [results.called(image.name) in results.done for image in images]
    done = sum(is_done)
    # If the captions themselves appear on the terminal, a bar would run through them.
    shown = bar or not sys.stdout.isatty()
    try:
        with progress_bar("captioning", len(images), done=done, shown=shown) as advance:
            for number, image, outcome in outcomes(
                captioner, search_options, images, is_done, explanations, batch_size
            ):
                if is_done[number]:
                    continue
                if isinstance(outcome, ShowtellError):
                    failures[number] = outcome
                    if explanations:
                        explanations.forget(number)
                else:
                    outcome = [caption.if_at_least(least) for caption in outcome]
                    if descriptions:  # before the row: a resumed run skips images that have one
                        descriptions.add(image, outcome)
                    results.write(image, outcome)
                    done += 1
                    if explanations:
                        explanations.add(number, image.name, outcome)
                advance()
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped by Ctrl-C after {done:,} of {len(images):,} images.",
            f"The same command {'without --explain ' if explanations else ''}with --resume continues."
            if bar
            else "With -o FILE, --resume could continue.",
        ) from None
    finally:
        tell(*(failures[number] for number in sorted(failures)))
    return len(failures)


def outcomes(
    captioner: Captioner,
    search_options: Mapping[str, Any],
    images: Sequence[StoredImage],
    is_done: Sequence[bool],
    explanations: Explanations | None,
    batch_size: int,
) -> Iterator[tuple[int, StoredImage, list[Caption] | ShowtellError]]:
    """The images that are not done, each with its place among all, and its captions or why there are none.

    The batch in which an interrupted run stopped comes first, and is captioned as a whole: the last digit of an
    image's numbers may depend on the others in its batch, and the file must be the same as without the interruption.
    The images that the run could not read come last. (The place also seeds the sampling.)
    """
    reached = max((number + 1 for number, done in enumerate(is_done) if done), default=0)
    first = reached - reached % batch_size if reached < len(images) else reached
    failed = [number for number in range(first) if not is_done[number]]
    for numbers in (range(first, len(images)), failed):
        yield from captioned(captioner, search_options, images, numbers, explanations, batch_size)


def captioned(
    captioner: Captioner,
    search_options: Mapping[str, Any],
    images: Sequence[StoredImage],
    numbers: Sequence[int],
    explanations: Explanations | None,
    batch_size: int,
) -> Iterator[tuple[int, StoredImage, list[Caption] | ShowtellError]]:
    """The images with these numbers, as `outcomes` yields them."""
    ahead: deque[StoredImage] = deque()  # those that are read but not yet captioned

    def reads() -> Iterator[Callable[[], Source]]:
        for number, image in zip(numbers, in_order(images[number] for number in numbers), strict=True):
            ahead.append(image)
            yield partial(explanations.read, number, image) if explanations else image.source

    stream = captioner.stream(
        reads(), batch_size=batch_size, numbers=numbers, attention=explanations is not None, **search_options
    )
    for number, outcome in zip(numbers, stream, strict=True):
        yield number, ahead.popleft(), outcome
