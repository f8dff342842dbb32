"""`showtell data`: what a data set holds and what is wrong with it; and downloads of well-known ones."""

import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell import data
from showtell.cli.progress import byte_bars, progress_bar
from showtell.data import DATA_FORMATS, Dataset, Example
from showtell.data.doubts import doubts
from showtell.data.download import published
from showtell.errors import ImageError, Interrupted, UsageError
from showtell.languages import lacks_spaces, words_of

SHOWN = 10
"""Missing and unreadable files that the table lists; --json lists all."""

app = typer.Typer(no_args_is_help=True, help="Look at a data set, or download one.")


@app.callback()
def group() -> None:
    """Look at a data set: images, captions, splits, what is missing; or download one."""


@app.command(
    epilog="Exit code 1 when an image can't be read. SPEC is FORMAT:LOCATION, such as flickr8k:DIR, or a path."
)
def info(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"FORMAT:LOCATION; FORMAT is {', '.join(DATA_FORMATS)}.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every file's name.")] = False,
    check: Annotated[bool, typer.Option(help="Read every image, to find those that can't be read.")] = True,
) -> None:
    """Show what a data set holds: images, captions, splits, caption lengths, missing and unreadable files."""
    dataset = data.load(spec)
    unreadable = unreadable_images(dataset.examples) if check else None
    summary = summary_of(dataset, unreadable)
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print_summary(summary)
    if unreadable:
        raise typer.Exit(1)


@app.command(
    epilog="If it is interrupted, the same command continues where it stopped. Data sets: "
    + ", ".join(published.PUBLISHED)
    + "."
)
def download(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The data set; leave it out to list all.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where it goes; NAME/ by default.")
    ] = None,
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="I accept the terms that were shown.")] = False,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep zip files once unpacked.")] = False,
) -> None:
    """Download a well-known data set, check that it is what was published, and unpack it."""
    if name is None:
        for each, found in published.PUBLISHED.items():
            print(f"{each:18}{found.what}")
        return
    found = published.find(name)
    if not (found.agreed or accept_terms):
        raise UsageError(found.terms, "If that suits what you want to do, add --accept-terms.")
    folder = out or Path(name)
    print(found.terms, file=sys.stderr)
    try:
        with byte_bars() as progress:
            published.download(found, folder, keep_archives=keep_archives, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped by Ctrl-C; what was downloaded is kept.", "The same command continues where it stopped."
        ) from None
    for archive in found.archives:
        print(f"{folder}: {archive.file.name} is unpacked; its {archive.file.digest.partition(':')[0]} was right.")
    if found.then:
        print(found.then)
    print(f"Now look at it: showtell data info {shlex.quote(found.spec.format(folder=folder))}")


def unreadable_images(examples: tuple[Example, ...]) -> list[str]:
    """What is wrong with each image that can't be read, one sentence each."""
    found = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as readers,  # decoders let other threads run
        progress_bar("Reading images", len(examples)) as advance,
    ):
        for problem in readers.map(_problem_of, examples):
            if problem is not None:
                found.append(problem)
            advance()
    return found


def summary_of(dataset: Dataset, unreadable: list[str] | None) -> dict[str, Any]:
    """The facts that `info` prints, as `--json` has them; `unreadable` is None if images were not read."""
    parts = {split: dataset.split(split) for split in dataset.splits}
    return {
        "name": dataset.name,
        "all": _counts_of(dataset.examples),
        "splits": {split: _counts_of(examples) for split, examples in parts.items()},
        "missing": list(dataset.missing),
        "unreadable": unreadable,
        "notes": list(dataset.notes),
        "doubts": doubts(dataset.examples),
    }


def print_summary(summary: dict[str, Any]) -> None:
    """The facts as a table, the files that are missing or unreadable, and the notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=summary["name"], title_justify="left", title_style="bold")
    table.add_column("split")
    for heading in ("images", "captions", "per image", "words: min", "median", "mean", "max"):
        table.add_column(heading, justify="right")
    for split, counts in (*summary["splits"].items(), ("all", summary["all"])):
        words = counts["words"]
        table.add_row(
            split,
            f"{counts['images']:,}",
            f"{counts['captions']:,}",
            counts["captions_per_image"],
            str(words["min"]),
            f"{words['median']:g}",
            f"{words['mean']:.1f}",
            str(words["max"]),
            end_section=split == list(summary["splits"])[-1],
        )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    _print_files(console, "missing files", summary["missing"])
    _print_files(console, "unreadable files", summary["unreadable"])
    for note in summary["notes"]:
        console.print(f"note: {note}")
    for doubt in summary["doubts"]:
        console.print(f"look at this: {doubt}")


def _print_files(console: Any, what: str, names: list[str] | None) -> None:
    console.print(f"{what}: {'not checked' if names is None else f'{len(names):,}'}")
    for name in (names or [])[:SHOWN]:
        console.print(f"  {name}")
    if names and len(names) > SHOWN:
        console.print(f"  and {len(names) - SHOWN:,} more (--json lists all)")


def _problem_of(example: Example) -> str | None:
    try:
        example.read()
    except ImageError as error:
        return str(error)
    return None


def _counts_of(examples: Iterable[Example]) -> dict[str, Any]:
    """Images, captions, and the captions' lengths in words."""
    captions = [example.captions for example in examples]
    said = [caption for texts in captions for caption in texts]
    words = [len(words_of(caption)) for caption in said] if lacks_spaces(said) else [len(c.split()) for c in said]
    least, most = min(map(len, captions)), max(map(len, captions))
    return {
        "images": len(captions),
        "captions": len(words),
        "captions_per_image": str(least) if least == most else f"{least}-{most}",
        "words": {
            "min": min(words),
            "median": statistics.median(words),
            "mean": round(statistics.mean(words), 2),
            "max": max(words),
        },
    }
