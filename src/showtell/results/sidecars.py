"""A text file beside each photo, dog.jpg -> dog.txt: what data set tools for image generators read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.errors import UsageError
from showtell.files import write_file
from showtell.images.names import printable
from showtell.images.storage import StoredImage

if TYPE_CHECKING:
    from showtell.captioner import Caption


class Sidecars:
    """An `Output` (see `outputs.py`); skips photos that have a text already, unless it may be overwritten.

    Args:
        images: all photos that will be captioned.
        prepend: written before each caption.
        append: written after it.
        overwrite: whether existing texts may be replaced.

    Raises:
        UsageError: an image is not a file on this disk, or two images would have the same text file.
    """

    def __init__(
        self, images: Sequence[StoredImage], *, prepend: str = "", append: str = "", overwrite: bool = False
    ) -> None:
        self._prepend, self._append = prepend, append
        self._beside: dict[str, Path] = {}
        owners: dict[Path, StoredImage] = {}
        for image in images:
            if image.path is None:
                raise UsageError(f"{image.name} is not a file of its own, so no text can be beside it.", "Use -o FILE.")
            text = image.path.with_suffix(".txt")
            if (other := owners.setdefault(text, image)) is not image and other.path != image.path:
                raise UsageError(
                    f"{printable(other.name)} and {printable(image.name)} would both have the text {text.name}.",
                    "Rename one of them, or use -o FILE.",
                )
            self._beside[image.name] = text
        there = {name for name, text in self._beside.items() if text.exists()}
        self.done = set() if overwrite else there
        self.kept = len(self.done)
        self.written = 0

    def called(self, name: str) -> str:
        return name

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Write the text, one caption a line, without captions that are left out for their confidence."""
        lines = [f"{self._prepend}{caption.text}{self._append}\n" for caption in captions if caption.text]
        if lines:
            write_file(self._beside[image.name], lines)
            self.written += 1

    def summary(self) -> str:
        kept = f", {self.kept:,} had one already (--overwrite replaces it)" if self.kept else ""
        return f"{self.written:,} texts written beside their photos{kept}."
