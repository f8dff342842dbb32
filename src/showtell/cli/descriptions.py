"""``showtell caption --write-metadata``: each photo's best caption becomes the description in its file."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from showtell.cli import one_line
from showtell.cli.inputs import STDIN, URL_PREFIXES
from showtell.cli.outputs import Output
from showtell.errors import ImageError, UsageError

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
        "--replace-description", help="Also where a photo has a description already.", rich_help_panel=METADATA
    ),
]
KeepOriginal = Annotated[
    bool,
    typer.Option(
        "--keep-original/--no-original",
        help="Leave each photo as it was beside the new one: PHOTO_original.",
        rich_help_panel=METADATA,
    ),
]


class DescribingOutput:
    """Describes each photo, then passes its captions on: what an output file lists is described, also after kill -9."""

    def __init__(self, results: Output, *, replace: bool, keep_original: bool) -> None:
        self._results = results
        self._replace = replace
        self._keep_original = keep_original
        self.described = self.kept = self.failed = 0

    def write(self, name: str, captions: "Sequence[Caption]") -> None:
        """Describe the photo and pass its captions on; a photo that can't be described is told of."""
        try:
            if self._describe(name, captions[0].text):
                self.described += 1
            else:
                self.kept += 1
        except ImageError as error:
            print(f"showtell: {one_line(str(error))}", file=sys.stderr)
            self.failed += 1
        self._results.write(name, captions)

    def _describe(self, name: str, text: str) -> bool:
        from showtell.metadata import describe_photo

        if name == STDIN or name.startswith(URL_PREFIXES):
            raise ImageError(f"{name} is no file, and can't be given a description.")
        return describe_photo(Path(name), text, replace=self._replace, keep_original=self._keep_original)


@contextmanager
def open_descriptions(results: Output, *, written: bool, replace: bool, keep_original: bool) -> Iterator[Output]:
    """An output that also describes the photos if that is `written`; at the end it says how many.

    Raises:
        UsageError: an option says how, and nothing is to be written.
        MissingExtraError: exiv2 is not installed.
    """
    if not written:
        if replace or not keep_original:
            raise UsageError(
                "--replace-description and --no-original say how to write metadata.", "Add --write-metadata."
            )
        yield results
        return
    from showtell.metadata.xmp import exiv2_library

    exiv2_library()  # that it is missing is better known now than after the first batch
    describing = DescribingOutput(results, replace=replace, keep_original=keep_original)
    try:
        yield describing
    finally:
        print(f"showtell: {summary(describing)}", file=sys.stderr)


def failed_descriptions(results: Output) -> int:
    """How many of an output's photos could not be described."""
    return results.failed if isinstance(results, DescribingOutput) else 0


def summary(describing: DescribingOutput) -> str:
    """How many photos were described, and why others were not."""
    said = f"{describing.described:,} described"
    if describing.kept:
        said += f", {describing.kept:,} had a description already (--replace-description writes over it)"
    if describing.failed:
        said += f", {describing.failed:,} could not be described"
    return f"{said}."
