"""``showtell gallery``: a page of photos and captions, to correct them and to save them as a table for `train`."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell.captioner import Caption, Captioner, load
from showtell.cli import options as shared
from showtell.cli.progress import progress_bar, tell
from showtell.data import Example
from showtell.data import load as load_data
from showtell.data.dataset import without_test
from showtell.errors import DataError, Interrupted, ShowtellError, UsageError
from showtell.files import check_writable
from showtell.images.decode import Source
from showtell.images.sources import find_images, listed_names
from showtell.images.storage import StoredImage
from showtell.images.tables import in_order
from showtell.pages.gallery import Photo, open_gallery

app = typer.Typer()


@app.command(epilog="Exit codes: 0 all done, 1 some photos failed (the rest are on the page), 2 wrong usage.")
@shared.takes_search_options(but=("num",))
def gallery(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page, an .html file.")],
    inputs: shared.Inputs = None,
    listed: shared.Listed = None,
    column: shared.Column = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="SPEC", help="In place of INPUT: a data set, with people's captions."),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Of the data set: train, dev or test.")] = "dev",
    model: shared.Model = None,
    batch_size: shared.BatchSize = 16,
    engine: shared.Engine = "auto",
    **search: Any,
) -> None:
    """Caption photos and show them on one page: search, sort by doubt, correct captions, and save them as CSV.

    `showtell train` takes the CSV as it is.
    """
    names = [*(inputs or []), *(listed_names(listed) if listed else [])]
    if bool(names) == (data is not None):
        raise UsageError(
            "INPUT and --data can't be used together." if names else "There is no INPUT.",
            "Leave out one of them." if names else "Name photos or a folder: showtell gallery photos/ --out album.html",
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: a gallery is HTML.", "Name an .html file.")
    check_writable(out)
    captioner = load(model, threads=1, engine=engine)
    captioner.options(**search)  # refuses wrong options before it looks for photos
    problems: Sequence[ShowtellError] = ()
    if data is not None:
        dataset = without_test(load_data(data))  # as `train` splits photos of one's own
        tell(*dataset.notes)
        examples = dataset.split(split)
        total, photos = len(examples), of_examples(examples, captioner.config.preprocessing.shorter_side)
    else:
        images, finder = find_images(names, column)
        tell(*finder.notes())
        problems = finder.problems
        total, photos = len(images), of_images(images)
    if not total:
        raise typer.Exit(1)
    with open_gallery(out, captioner.config.name) as add:
        bad = caption_all(captioner, photos, total, add, batch_size, search)
        if bad == total:
            raise DataError(f"No photo could be captioned, so {out} was not written.")
    print(f"Gallery: {out}")
    if bad or problems:
        tell(f"{total - bad:,} captioned, {bad + len(problems):,} failed.")
        raise typer.Exit(1)


def of_images(images: Iterable[StoredImage]) -> Iterator[Photo]:
    """Photos of INPUTs. The table names a file by its whole path: a browser may save the table anywhere."""
    for image in in_order(images):
        yield Photo(image.name, str(image.path.absolute()) if image.path else image.name, image.source)


def of_examples(examples: Iterable[Example], at_least: int) -> Iterator[Photo]:
    """Photos of a data set; `at_least` as in `read_image`."""
    for example in examples:
        file = str(example.path.absolute()) if example.path else example.image_id
        yield Photo(example.name, file, partial(example.read, at_least=at_least), example.captions)


def caption_all(
    captioner: Captioner,
    photos: Iterator[Photo],
    total: int,
    add: Callable[[Photo, Caption], None],
    batch_size: int,
    search: dict[str, Any],
) -> int:
    """Caption photos and add them to the page as they come; photos that can't be read are listed at the end.

    Returns:
        How many photos could not be read.

    Raises:
        Interrupted: at Ctrl-C; what was captioned by then is on the page.
    """
    ahead: deque[Photo] = deque()  # those that are read but not yet captioned
    at_least = captioner.config.preprocessing.shorter_side
    failures: list[ShowtellError] = []
    done = 0

    def reads() -> Iterator[Callable[[], Source]]:
        for photo in photos:
            ahead.append(photo)
            yield partial(photo.pixels, at_least)

    try:
        with progress_bar("captioning", total) as advance:
            for outcome in captioner.stream(reads(), batch_size=batch_size, **{**search, "num": 1}):
                photo = ahead.popleft()
                if isinstance(outcome, ShowtellError):
                    failures.append(outcome)
                else:
                    add(photo, outcome[0])
                    done += 1
                advance()
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped by Ctrl-C after {done:,} of {total:,} photos.", "The page holds them.") from None
    finally:
        tell(*failures)
    return len(failures)
