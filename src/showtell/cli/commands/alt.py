"""``showtell alt``: alternative text for the images of web pages and Markdown files that have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell.captioner import Captioner, load
from showtell.cli import options as shared
from showtell.cli.progress import progress_bar, tell
from showtell.confidence import GUESS
from showtell.errors import DataError, ImageError, Interrupted, ShowtellError
from showtell.images.names import printable
from showtell.results.alt_text import Document, read_document, sentence

app = typer.Typer()


@app.command(epilog="Exit codes: 0 all done, 1 some files or images could not be read, 2 wrong usage.")
@shared.takes_search_options(but=("num", "prefix"))
def alt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Web pages (.html) and Markdown files (.md).")],
    model: shared.Model = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the texts into the files; nothing else in them changes.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="DIR", help="The site's folder: addresses like /images/a.jpg are relative to it."
        ),
    ] = None,
    decorative: Annotated[
        bool,
        typer.Option("--decorative", help='Also propose a text for images with alt="", which marks decoration.'),
    ] = False,
    min_confidence: shared.MinConfidence = None,
    batch_size: shared.BatchSize = 16,
    **search: Any,
) -> None:
    """Propose alternative text for images that lack it: a line for each, `FILE:LINE<TAB>IMAGE<TAB>TEXT`.

    Images on other machines, drawings (SVG) and images where the model could only guess are left out. Read the texts
    before you publish them: some are wrong.
    """
    captioner = load(model)
    captioner.options(**search)
    if min_confidence is not None:
        captioner.refuse_unless_confident()
    least = GUESS if min_confidence is None else min_confidence
    problems: list[ShowtellError] = []
    documents: list[Document] = []
    for path in dict.fromkeys(files):
        try:
            documents.append(read_document(path, root=root, decorative=decorative))
        except DataError as error:
            problems.append(error)
    missing = [problem for document in documents for problem in missing_images(document)]
    images = dict.fromkeys(file for document in documents for file in document.files.values() if file.is_file())
    texts = texts_of(captioner, list(images), batch_size, search, least, problems)
    proposed = sum(show(document, texts) for document in documents)
    if documents and not any(document.places or document.skipped for document in documents):
        tell(f"{counted(documents)}: none lacks alternative text.")
    elif write:
        written = sum(filled(document, texts, problems) for document in documents)
        tell(f"{written:,} of {proposed:,} written. Read them before you publish them: some are wrong.")
    elif proposed:
        tell(f"{proposed:,} proposed; --write puts them into the files. Read them first: some are wrong.")
    tell(*problems, *missing)
    if problems or missing:
        raise typer.Exit(1)


def counted(documents: list[Document]) -> str:
    """How many documents were read, and how many images they have."""
    files, images = len(documents), sum(document.images for document in documents)
    return f"{files:,} file{'s' * (files != 1)} with {images:,} image{'s' * (images != 1)}"


def missing_images(document: Document) -> list[ImageError]:
    return [
        ImageError(f"{document.path}:{document.line_of(place)}: there is no image {shortened(place.image)}.")
        for place in document.places
        if not document.files[place.image].is_file()
    ]


def texts_of(
    captioner: Captioner,
    images: list[Path],
    batch_size: int,
    search: Mapping[str, Any],
    least: float,
    problems: list[ShowtellError],
) -> dict[Path, str]:
    """The texts of images whose confidence is at least `least`; what is wrong with others is added to `problems`.

    Raises:
        Interrupted: at Ctrl-C; no file has been changed by then.
    """
    texts: dict[Path, str] = {}
    outcomes = captioner.stream(images, batch_size=batch_size, **{**search, "num": 1})
    try:
        with progress_bar("captioning", len(images)) as advance:
            for image, outcome in zip(images, outcomes, strict=True):
                if isinstance(outcome, ShowtellError):
                    problems.append(outcome)
                elif reason := outcome[0].if_at_least(least).left_out:
                    tell(f"{printable(str(image))} is left out: {reason}.")
                elif text := sentence(outcome[0].text):
                    texts[image] = text
                else:
                    problems.append(ImageError(f"{image}: the model's caption is empty."))
                advance()
    except KeyboardInterrupt:
        raise Interrupted("Stopped by Ctrl-C; no file was changed.") from None
    return texts


def show(document: Document, texts: dict[Path, str]) -> int:
    """Print the texts proposed for a document, and on stderr what is skipped; return how many texts there are."""
    for skipped in document.skipped:
        line = f"{printable(str(document.path))}:{document.line_of(skipped)}"
        tell(f"{line}: {shortened(skipped.image)} {skipped.reason}.")
    count = 0
    for place in document.places:
        text = texts.get(document.files[place.image])
        if text:
            print(f"{printable(str(document.path))}:{document.line_of(place)}\t{printable(place.image)}\t{text}")
            count += 1
    return count


def filled(document: Document, texts: dict[Path, str], problems: list[ShowtellError]) -> int:
    """Put the texts into a document; return how many. If it can't be written, the reason is added to `problems`."""
    by_image = {image: texts[file] for image, file in document.files.items() if file in texts}
    count = sum(place.image in by_image for place in document.places)
    if count:
        try:
            document.write(by_image)
        except DataError as error:
            problems.append(error)
            return 0
    return count


def shortened(address: str) -> str:
    """An address, short enough for a message: a data: URL may be megabytes long."""
    return printable(address if len(address) <= 60 else address[:57] + "...")
