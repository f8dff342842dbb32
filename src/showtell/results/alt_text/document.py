"""A document as text whose every byte comes back, and the images that it shows from the same disk."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from showtell.errors import DataError
from showtell.files import replace_file
from showtell.images.names import as_on_disk
from showtell.results.alt_text.html import html_places
from showtell.results.alt_text.markdown import markdown_places
from showtell.results.alt_text.place import Place, Skipped

HTML = frozenset((".html", ".htm", ".xhtml"))
MARKDOWN = frozenset((".md", ".markdown"))

LINE_BREAK = re.compile(r"\r\n|\r|\n")
TEMPLATE = re.compile(r"\{\{|\{%|<[?%]|\$\{")  # an address that another program fills in
UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True)
class Document:
    """A document and where it lacks alternative text."""

    path: Path
    content: bytes
    """What the file held when it was read."""
    text: str
    codec: tuple[str, str]
    """Encoding and error handler between `content` and `text`."""
    places: tuple[Place, ...]
    """Where images that are files lack text, in order."""
    skipped: tuple[Skipped, ...]
    """The images without text that are no files here."""
    files: Mapping[str, Path]
    """The file of each place's image."""

    def line_of(self, place: Place | Skipped) -> int:
        """The number of the line that a place is in, from 1."""
        return bisect_right(self._line_starts, place.start)

    def with_texts(self, texts: Mapping[str, str]) -> bytes:
        """The document with these texts, by image, in its places; a place whose image has none stays as it is."""
        pieces, done = [], 0
        for place in self.places:
            if alt := texts.get(place.image):
                pieces += [self.text[done : place.start], self._writable(place.filled(alt))]
                done = place.end
        return "".join((*pieces, self.text[done:])).encode(*self.codec)

    def write(self, texts: Mapping[str, str]) -> None:
        """Put `with_texts` into the file.

        Raises:
            DataError: it can't be written, or somebody else has changed it since it was read.
        """
        try:
            if self.path.read_bytes() != self.content:
                raise DataError(
                    f"{self.path} has changed since it was read, and is left alone.", "Run the command again."
                )
            replace_file(self.path, self.with_texts(texts))
        except OSError as error:
            raise DataError(f"{self.path} can't be written: {error.strerror}.") from None

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(line_break.end() for line_break in LINE_BREAK.finditer(self.text))]

    def _writable(self, filled: str) -> str:
        """Letters that a document in an older encoding than UTF-8 can't hold become character references."""
        is_unicode = self.codec[1] != "surrogateescape" or all(not "\ud800" <= c <= "\udfff" for c in self.text)
        return filled if is_unicode else filled.encode("ascii", "xmlcharrefreplace").decode()


def read_document(path: Path, *, root: Path | None = None, decorative: bool = False) -> Document:
    """Read a document and find where it lacks alternative text.

    Args:
        path: the file, HTML or Markdown by its suffix.
        root: the folder that addresses like `/images/dog.jpg` begin in.
        decorative: as in `html_places`.

    Raises:
        DataError: the file is neither, or can't be read.
        MissingExtraError: it is Markdown, and pyromark is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in HTML | MARKDOWN:
        raise DataError(
            f"{path} is neither HTML nor Markdown by its suffix.", f"Known are {', '.join(sorted(HTML | MARKDOWN))}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from None
    codec = (UTF16[content[:2]], "surrogatepass") if content[:2] in UTF16 else ("utf-8", "surrogateescape")
    try:
        text = content.decode(*codec)
    except UnicodeDecodeError:
        raise DataError(f"{path} begins like UTF-16 and is not.") from None
    places, skipped = (html_places if suffix in HTML else markdown_places)(text, decorative=decorative)
    found: list[Place] = []
    files: dict[str, Path] = {}
    for place in places:
        file = file_of(place.image, path.parent, root)
        if isinstance(file, Path):
            found.append(place)
            files[place.image] = file
        else:
            skipped.append(Skipped(place.start, place.image, file))
    skipped.sort(key=lambda place: place.start)
    return Document(path, content, text, codec, tuple(found), tuple(skipped), files)


def file_of(image: str, folder: Path, root: Path | None = None) -> Path | str:
    """The file of an image's address in a document in `folder`; or why it is none here."""
    if TEMPLATE.search(image):
        return "is filled in by a template"
    try:
        parts = urlsplit(image)
    except ValueError:
        return "is no address"
    if parts.scheme.lower() == "data":
        return "is data in the document"
    if parts.scheme or parts.netloc:
        return "is on another machine"
    if not parts.path:
        return "is no address"
    file = unquote(parts.path, errors="surrogateescape")
    if "\0" in file:
        return "is no address"
    if file.lower().endswith((".svg", ".svgz")):
        return "is a drawing (SVG)"
    if file.startswith("/") and root is None:
        return "begins at the site's root (say --root DIR)"
    path = root / file.lstrip("/") if root is not None and file.startswith("/") else folder / file
    return path if path.exists() else next(as_on_disk([path])) or path
