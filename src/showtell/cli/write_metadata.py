"""``showtell caption --write-metadata``: each photo's best caption becomes the description in its file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from showtell.cli.progress import tell
from showtell.errors import ImageError, UsageError
from showtell.images.storage import StoredImage

if TYPE_CHECKING:
    from showtell.captioner import Caption

METADATA = "Descriptions in the photos"

WriteMetadata = Annotated[
    bool,
    typer.Option(
        "--write-metadata",
        help="Put the best caption into each JPEG, PNG and WebP file: XMP, IPTC. Pixels are not touched.",
        rich_help_panel=METADATA,
    ),
]
ReplaceDescription = Annotated[
    bool,
    typer.Option(
        "--replace-description", help="Replace descriptions that photos already have.", rich_help_panel=METADATA
    ),
]
KeepOriginal = Annotated[
    bool,
    typer.Option(
        "--keep-original/--no-original",
        help="Keep each photo as it was beside the new one: PHOTO_original.",
        rich_help_panel=METADATA,
    ),
]


class Descriptions:
    """Writes captions into one photo after the other, and counts the outcomes."""

    def __init__(self, *, replace: bool, keep_original: bool, least: float) -> None:
        self._least = least
        self._replace = replace
        self._keep_original = keep_original
        self.written = self.had_one = self.guesses = self.failed = 0

    def add(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Describe the photo by its best caption, unless that is a guess; report a photo that can't be described."""
        best = captions[0].if_at_least(self._least)
        if best.left_out:
            self.guesses += 1
            return
        try:
            if self._describe(image, best.text):
                self.written += 1
            else:
                self.had_one += 1
        except ImageError as error:
            tell(error)
            self.failed += 1

    def summary(self) -> str:
        """How many photos were described, and why others were not."""
        said = f"{self.written:,} described"
        if self.had_one:
            said += f", {self.had_one:,} had a description already (--replace-description overwrites it)"
        if self.guesses:
            said += f", {self.guesses:,} left out because their captions are guesses (--min-confidence 0 writes them)"
        if self.failed:
            said += f", {self.failed:,} could not be described"
        return f"{said}."

    def _describe(self, image: StoredImage, text: str) -> bool:
        from showtell.results.metadata import describe_photo

        if image.path is None:
            raise ImageError(f"{image.name} is not a file of its own, so it can't be given a description.")
        return describe_photo(image.path, text, replace=self._replace, keep_original=self._keep_original)


@contextmanager
def open_descriptions(
    *, wanted: bool, replace: bool, keep_original: bool, least: float
) -> Iterator[Descriptions | None]:
    """Yields what describes the photos, if that is `wanted`, by captions of at least the confidence `least`.

    At the end, also after Ctrl-C, it says how many photos were described.

    Raises:
        UsageError: an option says how to write, but nothing is to be written.
        MissingExtraError: exiv2 is not installed.
    """
    if not wanted:
        if replace or not keep_original:
            raise UsageError(
                "--replace-description and --no-original say how to write metadata.", "Add --write-metadata."
            )
        yield None
        return
    from showtell.results.metadata.xmp import exiv2_library

    exiv2_library()  # raises now, and not after the first batch, if it is missing
    descriptions = Descriptions(replace=replace, keep_original=keep_original, least=least)
    try:
        yield descriptions
    finally:
        tell(descriptions.summary())
